//! The halt threads of a pool: one for each vCPU, on which the halted vCPU sleeps. KVM wakes it there for an
//! interrupt, and the thread gives it back to the pool instead of letting it run on.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use baton_machine::kvm;
use baton_os::sys;

use super::interrupt_sleep::InterruptSleep;
use super::local_vcpu::{LocalVcpu, RunRequest, VcpuThreads};
use super::new_vcpu::{NewVcpu, StartedThreads};
use super::owned_vcpu::OwnedVcpu;
use super::pool::Pool;
use crate::halt::{ExitOnWake, HaltThread, HaltThreadError, SleepEnd, VcpuSleep, check_wake_step};

/// A vCPU that executors run has a halt thread.
struct WithHaltThread {
    sleep: Arc<VcpuSleep<LocalVcpu>>,
    pool: Weak<Pool>,
}

impl VcpuThreads for WithHaltThread {
    fn run(&self, _: RunRequest) -> bool {
        false
    }

    fn begin_sleep(&self, vcpu: LocalVcpu) {
        // Only this vCPU sleeps on the thread, so the thread takes it unless it is closing.
        if let Err(vcpu) = self.sleep.put(vcpu) {
            keep(&self.pool, vcpu);
        }
    }
}

impl InterruptSleep for WithHaltThread {
    fn interrupt_sleep(&self) {
        self.sleep.interrupt();
    }
}

/// A vCPU that executors run has no other thread, where KVM cannot end a halt without delivering the interrupt.
/// Executors poll halted vCPUs then.
struct WithoutThreads(Weak<Pool>);

impl VcpuThreads for WithoutThreads {
    fn run(&self, _: RunRequest) -> bool {
        false
    }

    fn begin_sleep(&self, vcpu: LocalVcpu) {
        keep(&self.0, vcpu);
    }
}

impl InterruptSleep for WithoutThreads {
    fn interrupt_sleep(&self) {}
}

/// `vcpu` cannot sleep, so that the pool only has to keep it.
pub(super) fn keep(pool: &Weak<Pool>, vcpu: LocalVcpu) {
    if let Some(pool) = pool.upgrade() {
        pool.end_sleep(OwnedVcpu::Local(vcpu), 0);
    }
}

/// The threads of a vCPU that has none.
pub(super) fn none(pool: &Arc<Pool>) -> Arc<dyn VcpuThreads> {
    Arc::new(WithoutThreads(Arc::downgrade(pool)))
}

/// Starts a halt thread for `vcpu`, on the host CPUs where the vCPU may run.
///
/// # Errors
/// If the thread cannot be started or set up.
pub(super) fn start(
    pool: &Arc<Pool>,
    vcpu: &NewVcpu<'_>,
) -> Result<StartedThreads, HaltThreadError> {
    let since = Cell::new(pool.pins.epoch());
    let priority = pool.priority;
    let cpus = Arc::clone(vcpu.host_cpus);
    let pool = Arc::downgrade(pool);
    let on_pool = Weak::clone(&pool);
    let on_wake = move |vcpu: LocalVcpu, end: SleepEnd, cpu_ns: u64| {
        if let Some(pool) = on_pool.upgrade() {
            if since.replace(pool.pins.epoch()) != pool.pins.epoch() {
                // The kernel refuses only if none of them can be used. The thread stays where it is then.
                let _ = sys::set_affinity(&pool.usable_cpus.usable(&cpus.get()));
            }
            give_back(&pool, vcpu, end, cpu_ns);
        }
    };
    let name = vcpu.thread_name("halt");
    let own = sys::affinity();
    // The new thread inherits the affinity. All are CPUs of the pool, which this process may use.
    let _ = sys::set_affinity(&vcpu.host_cpus.get());
    let thread = HaltThread::new(name, ExitOnWake::Events, priority, Box::new(on_wake));
    if let Ok(own) = own {
        // It was in force a moment ago.
        let _ = sys::set_affinity(&own);
    }
    let thread = thread?;
    let sleep = Arc::clone(thread.sleep());
    Ok(StartedThreads {
        ways: Arc::new(WithHaltThread { sleep, pool }),
        owner: Box::new(thread),
        // Executors run the vCPU.
        detect_halts: true,
    })
}

/// Whether KVM can end a halt without delivering the interrupt.
pub(super) fn possible() -> bool {
    kvm::open().is_ok_and(|kvm| check_wake_step(&kvm).is_ok())
}

/// Gives a vCPU whose sleep ended as `end` back to the pool. Its halt thread has used `cpu_ns` of CPU time
/// since it gave the vCPU back last.
pub(super) fn give_back(pool: &Pool, mut vcpu: LocalVcpu, end: SleepEnd, cpu_ns: u64) {
    let guest = Arc::clone(&vcpu.guest);
    if let SleepEnd::Exited(exit) = end {
        // The guest's one instruction needs an answer, which the executor that runs the vCPU next gives.
        vcpu.put_off(exit);
    }
    pool.end_sleep(OwnedVcpu::Local(vcpu), cpu_ns);
    if guest.has_ended() {
        pool.remove_guest(&guest);
    }
}
