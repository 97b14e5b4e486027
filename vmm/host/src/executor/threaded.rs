//! The second form of running a vCPU: on its own thread, which the executor wakes and waits for.

use baton_machine::Vcpu;
use vcpu_sched::CpuId;

use super::handoff::Handoff;
use super::kick_target::KickTarget;
use super::owned_vcpu::OwnedVcpu;
use super::vcpu_runner::{FinishedRun, VcpuRunner};
use super::vcpu_thread::{Answer, RunRequest, Work};
use super::vcpu_threads::VcpuThreadSet;
use crate::halt::InPlaceEnd;

/// One executor's way to the vCPUs' threads.
pub(crate) struct Threaded {
    /// The vCPUs' threads, in the policy's order.
    threads: Vec<Handoff<Work>>,
    cpu: CpuId,
    host_cpu: usize,
    answers: Handoff<FinishedRun>,
    detects_halts: bool,
}

impl Threaded {
    /// For the executor of `cpu`, which is `host_cpu`.
    pub(crate) fn new(threads: &VcpuThreadSet, cpu: CpuId, host_cpu: usize) -> Self {
        Self {
            threads: threads.inboxes(),
            cpu,
            host_cpu,
            answers: Handoff::new(),
            detects_halts: threads.detect_halts(),
        }
    }
}

impl VcpuRunner for Threaded {
    fn run(&mut self, vcpu: OwnedVcpu, until: Option<u64>, _: &KickTarget) -> Option<FinishedRun> {
        let thread = self.threads.get(vcpu.id().index())?;
        let request = RunRequest {
            vcpu,
            until,
            cpu: self.cpu,
            host_cpu: self.host_cpu,
            answer: Answer::to(self.answers.clone()),
        };
        let run = thread
            .put(Work::Run(request))
            .ok()
            .and_then(|()| self.answers.take());
        if run.is_none() {
            // Closed for the vCPU that is lost, not for the others.
            self.answers = Handoff::new();
        }
        run
    }

    fn detects_halts(&self) -> bool {
        self.detects_halts
    }

    // A halted vCPU sleeps on its own thread, which the executor would have to wake in any case. Sleeping
    // in place was tried, because the vCPU need not go through the pool then. It gained a tenth of a
    // wake-up. Where two vCPUs were idle, of which one could sleep in place, a wake-up of the other took
    // 1.7 times as long, because the sleep in place had to end first.
    fn can_sleep(&self) -> bool {
        false
    }

    fn sleep(&mut self, _: &mut Vcpu, _: Option<u64>, _: &KickTarget) -> InPlaceEnd {
        InPlaceEnd::NeedsHaltThread
    }
}
