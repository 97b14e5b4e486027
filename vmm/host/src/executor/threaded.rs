//! The second form of running a vCPU: on its own thread, which the executor wakes and waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_machine::Vcpu;
use vcpu_sched::CpuId;

use super::handoff::Handoff;
use super::kick_target::KickTarget;
use super::local_vcpu::{Answer, FinishedRun, LocalVcpu, RunRequest};
use super::vcpu_runner::VcpuRunner;
use crate::halt::InPlaceEnd;

/// One executor's way to the vCPUs' threads.
pub(crate) struct Threaded {
    cpu: CpuId,
    host_cpu: usize,
    answers: Handoff<FinishedRun>,
    /// Whether halts end a run on all of the vCPUs' threads.
    detect_halts: Arc<AtomicBool>,
}

impl Threaded {
    /// For the executor of `cpu`, which is `host_cpu`.
    pub(crate) fn new(cpu: CpuId, host_cpu: usize, detect_halts: Arc<AtomicBool>) -> Self {
        Self {
            cpu,
            host_cpu,
            answers: Handoff::new(),
            detect_halts,
        }
    }
}

impl VcpuRunner for Threaded {
    fn run(&mut self, vcpu: LocalVcpu, until: Option<u64>, _: &KickTarget) -> Option<FinishedRun> {
        let threads = Arc::clone(vcpu.threads());
        let request = RunRequest {
            vcpu,
            until,
            cpu: self.cpu,
            host_cpu: self.host_cpu,
            answer: Answer::to(self.answers.clone()),
        };
        let run = threads.run(request).then(|| self.answers.take()).flatten();
        if run.is_none() {
            // Closed for the vCPU that is lost, not for the others.
            self.answers = Handoff::new();
        }
        run
    }

    fn detects_halts(&self) -> bool {
        self.detect_halts.load(Ordering::Relaxed)
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
