//! The halt threads of a pool: one for each vCPU, on which the halted vCPU sleeps. KVM wakes it there for an
//! interrupt, and the thread gives it back to the pool instead of letting it run on.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use baton_machine::{Vcpu, kvm};
use baton_os::sys;
use vcpu_sched::VcpuId;

use super::owned_vcpu::OwnedVcpu;
use super::pool::{HaltThreads, Pool};
use super::pool_guest::NewVcpu;
use crate::halt::{ExitOnWake, HaltThread, HaltThreadError, SleepEnd, check_wake_step};

/// Halt threads apart from the threads that run the vCPUs.
struct SeparateHaltThreads {
    /// In the policy's order of vCPUs.
    threads: Vec<HaltThread>,
    /// The pool keeps the threads, so they must not keep the pool.
    pool: Weak<Pool>,
}

impl HaltThreads for SeparateHaltThreads {
    fn begin_sleep(&self, vcpu: OwnedVcpu) {
        let id = vcpu.id();
        // Only this vCPU sleeps on the thread, so the thread takes it unless it is closing.
        if let Err(vcpu) = self.threads[id.index()].put(vcpu.into_vcpu())
            && let Some(pool) = self.pool.upgrade()
        {
            pool.end_sleep(OwnedVcpu::new(id, vcpu), 0);
        }
    }

    fn interrupt_sleep(&self, id: VcpuId) {
        self.threads[id.index()].interrupt_sleep();
    }
}

/// Starts a halt thread for each vCPU, on the host CPUs where the vCPU may run. `None` where KVM cannot end a
/// halt without delivering the interrupt. Executors poll halted vCPUs then.
///
/// # Errors
/// If a thread cannot be started or set up.
pub fn start(
    pool: &Arc<Pool>,
    vcpus: &[NewVcpu],
) -> Result<Option<Arc<dyn HaltThreads>>, HaltThreadError> {
    if !possible() {
        return Ok(None);
    }
    let own = sys::affinity();
    let threads = (0..)
        .map(VcpuId)
        .zip(vcpus)
        .map(|(id, vcpu)| start_one(pool, id, vcpu))
        .collect::<Result<Vec<_>, _>>();
    if let Ok(own) = own {
        // It was in force a moment ago.
        let _ = sys::set_affinity(&own);
    }
    Ok(Some(Arc::new(SeparateHaltThreads {
        threads: threads?,
        pool: Arc::downgrade(pool),
    })))
}

fn start_one(pool: &Arc<Pool>, id: VcpuId, vcpu: &NewVcpu) -> Result<HaltThread, HaltThreadError> {
    let since = Cell::new(pool.pins.epoch());
    let priority = pool.priority;
    let cpus = vcpu.host_cpus.clone();
    let pool = Arc::downgrade(pool);
    let on_wake = move |vcpu: Box<Vcpu>, end: SleepEnd, cpu_ns: u64| {
        if let Some(pool) = pool.upgrade() {
            if since.replace(pool.pins.epoch()) != pool.pins.epoch() {
                // The kernel refuses only if none of them can be used. The thread stays where it is then.
                let _ = sys::set_affinity(&pool.usable_cpus.usable(&cpus));
            }
            give_back(&pool, OwnedVcpu::new(id, vcpu), end, cpu_ns);
        }
    };
    let NewVcpu {
        index, guest_name, ..
    } = vcpu;
    // Linux shows 15 characters.
    let name = format!("halt{index}:{guest_name}")
        .chars()
        .take(15)
        .collect();
    // The new thread inherits the affinity. All are CPUs of the pool, which this process may use.
    let _ = sys::set_affinity(&vcpu.host_cpus);
    HaltThread::new(name, ExitOnWake::Events, priority, Box::new(on_wake))
}

/// Whether KVM can end a halt without delivering the interrupt.
pub(super) fn possible() -> bool {
    kvm::open().is_ok_and(|kvm| check_wake_step(&kvm).is_ok())
}

/// Gives a vCPU whose sleep ended as `end` back to the pool. Its halt thread has used `cpu_ns` of CPU time
/// since it gave the vCPU back last.
pub(super) fn give_back(pool: &Pool, mut vcpu: OwnedVcpu, end: SleepEnd, cpu_ns: u64) {
    let guest = Arc::clone(&vcpu.guest);
    if let SleepEnd::Exited(exit) = end {
        // The guest's one instruction needs an answer, which the executor that runs the vCPU next gives.
        vcpu.put_off(exit);
    }
    pool.end_sleep(vcpu, cpu_ns);
    if guest.has_ended() {
        pool.remove_guest(&guest);
    }
}
