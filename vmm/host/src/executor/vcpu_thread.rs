//! A vCPU's own thread, on which it runs and sleeps.
//!
//! The vCPU is still a value with one owner: it goes to its thread with a request and comes back with the
//! answer. The thread pins itself to the host CPU of the executor that requests a run, so the two never
//! run at the same time and the policy's choice of CPU holds.
//!
//! A halted vCPU sleeps on its own thread, too, in a [`VcpuSleep`]. So it never changes threads, which costs an
//! RCU grace period each time before Linux 6.13.

use std::io;
use std::sync::{Arc, Weak};

use baton_os::sys;

use super::allowed_cpus::AllowedCpus;
use super::halt_threads;
use super::handoff::Handoff;
use super::kick_handler;
use super::local_vcpu::{FinishedRun, LocalVcpu, RunRequest};
use super::pins::Pinned;
use super::pool::Pool;
use super::run_loop::RunLoop;
use crate::halt::{CpuMeter, ExitOnWake, HaltSetup, VcpuSleep};

/// What a vCPU's thread can be requested to do. The vCPU comes with the request, so there is one request
/// at a time.
pub(super) enum Work {
    Run(RunRequest),
    /// Let the vCPU sleep, and give it back to the pool.
    Sleep(LocalVcpu),
}

/// Where a vCPU's thread takes its work from. Closed when the thread ends, so that no work is put there
/// that nothing takes.
pub(super) struct Inbox(pub(super) Handoff<Work>);

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a vCPU's thread has.
pub(super) struct VcpuThread {
    run_loop: RunLoop,
    vcpu_sleep: Arc<VcpuSleep<LocalVcpu>>,
    halt_setup: HaltSetup,
    pool: Weak<Pool>,
    /// The host CPUs where the vCPU may run.
    cpus: Arc<AllowedCpus>,
    /// The one of them that the thread is pinned to.
    pinned: Pinned,
    /// The thread's CPU time. Each report includes the wait for work and the hand-over before it.
    cpu_meter: CpuMeter,
}

impl VcpuThread {
    /// For the calling thread.
    ///
    /// # Errors
    /// If the host has no timers or signals for it.
    pub(super) fn for_this_thread(
        vcpu_sleep: Arc<VcpuSleep<LocalVcpu>>,
        pool: Weak<Pool>,
        cpus: Arc<AllowedCpus>,
    ) -> io::Result<Self> {
        Ok(Self {
            run_loop: RunLoop::for_this_thread()?,
            vcpu_sleep,
            halt_setup: HaltSetup::for_this_thread(ExitOnWake::Events)?,
            pool,
            cpus,
            pinned: Pinned::default(),
            cpu_meter: CpuMeter::start(),
        })
    }

    /// Whether halts end a run on this thread.
    pub(super) fn detects_halts(&self) -> bool {
        self.run_loop.detects_halts()
    }

    /// Does what is requested until `inbox` is closed.
    pub(super) fn serve(mut self, inbox: &Inbox) {
        sys::set_exact_timers();
        while let Some(work) = inbox.0.take() {
            let Some(pool) = self.pool.upgrade() else {
                return;
            };
            match work {
                Work::Run(request) => self.run(request, &pool),
                Work::Sleep(vcpu) => self.sleep(vcpu, &pool),
            }
        }
    }

    fn run(&mut self, request: RunRequest, pool: &Pool) {
        let RunRequest {
            mut vcpu,
            until,
            cpu,
            host_cpu,
            answer,
        } = request;
        // The executor is pinned there, so the kernel permits it unless the executor is moved, too.
        self.pinned.go_to(host_cpu, &pool.pins);
        kick_handler::forget_missed();
        let exit = self.run_loop.run(&mut vcpu, until, pool.kick_target(cpu));
        let elsewhere_ns = self.cpu_meter.take_ns();
        answer.give(FinishedRun {
            vcpu,
            exit,
            elsewhere_ns,
        });
    }

    fn sleep(&mut self, mut vcpu: LocalVcpu, pool: &Pool) {
        // Until the vCPU is given back, which takes the pool's lock.
        let _preempts = pool.priority.preempt_for_now();
        // Another vCPU runs by now where this one halted; it may wake wherever there is room.
        if sys::set_affinity(&pool.usable_cpus.usable(&self.cpus.get())).is_ok() {
            self.pinned.forget();
        }
        let end = self.vcpu_sleep.sleep(&mut vcpu, &self.halt_setup);
        let cpu_ns = self.cpu_meter.take_ns();
        halt_threads::give_back(pool, vcpu, end, cpu_ns);
    }
}
