//! A guest whose virtual machine is in another process, as the pool knows it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_link::LinkError;
use baton_link::foreign_clock::ForeignThreadClock;
use baton_link::foreign_process::{ForeignProcess, ThreadState};
use baton_link::pool_side::PoolGuestLink;
use baton_machine::{GuestEnd, GuestRecord};
use vcpu_sched::Ns;

use super::foreign_account::ProcessAccount;

/// The number of a guest of another process in its pool. No two guests of a pool have the same.
pub type GuestNumber = u64;

/// Receives what a pool has to report of the process of a guest. Executors call it, so it must not block.
pub trait ProcessReport: Send + Sync {
    /// The process broke the protocol, ran without a command, or its vCPU's thread is overdue. The pool has stopped
    /// the process by SIGSTOP and taken the guest's claims out of the policy, and then kills the process.
    fn failed(&self, number: GuestNumber, error: &LinkError);

    /// Whether the process has left the pool by closing its control socket. It obeys no commands since, and what it does
    /// is no failure.
    fn has_left(&self) -> bool {
        false
    }

    /// Something that the user of the guest should know: `what`, with the guest as the subject.
    fn notice(&self, number: GuestNumber, what: &str);
}

/// A guest of another process.
pub(crate) struct ForeignGuest {
    number: GuestNumber,
    record: Arc<GuestRecord>,
    process: ForeignProcess,
    link: PoolGuestLink,
    report: Arc<dyn ProcessReport>,
    account: ProcessAccount,
    has_failed: AtomicBool,
    /// Whether a refusal of a priority has been reported.
    is_refused: AtomicBool,
}

impl ForeignGuest {
    /// The guest of `record` with this `number`, which runs in `process`, whose vCPUs' threads have these clocks.
    pub(super) fn new(
        number: GuestNumber,
        record: Arc<GuestRecord>,
        process: ForeignProcess,
        link: PoolGuestLink,
        clocks: &[Arc<ForeignThreadClock>],
        report: Arc<dyn ProcessReport>,
    ) -> Self {
        let account = ProcessAccount::new(&process, clocks);
        Self {
            number,
            record,
            process,
            link,
            report,
            account,
            has_failed: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
        }
    }

    /// What is known of the guest.
    pub(crate) fn record(&self) -> &Arc<GuestRecord> {
        &self.record
    }

    /// Records that the hand-over of a vCPU has failed with `error`. The claims of the guest are taken out of the
    /// policy, so the caller must not hold the pool's lock.
    pub(super) fn fail(&self, error: &LinkError) {
        // A guest that takes its pool for hung runs on by itself, and the pool may find that before the closed socket.
        if matches!(error, LinkError::Gone) || self.report.has_left() {
            self.record
                .end(GuestEnd::ProcessLost("it has ended".into()));
            return;
        }
        if let LinkError::ThreadEnded = error {
            self.record.end(GuestEnd::ProcessLost(error.to_string()));
            // Without effect where all of it ends. No guest goes on without a vCPU.
            self.process.kill();
            return;
        }
        if self.has_failed.swap(true, Ordering::Relaxed) {
            return;
        }
        // First, so that none of its threads runs any longer.
        self.process.stop();
        self.record.end(GuestEnd::ProcessLost(error.to_string()));
        self.report.failed(self.number, error);
        self.process.kill();
    }

    /// The control socket has closed: whoever waits for one of the guest's vCPUs returns.
    pub(super) fn hang_up(&self) {
        self.link.hang_up();
    }

    /// Shows the process that the pool works.
    pub(super) fn beat(&self) {
        self.link.beat();
    }

    /// Takes the CPU time that the process has used beside its vCPUs' threads since the last time, ns.
    pub(super) fn take_rest(&self, now: Ns) -> Ns {
        self.account.take_rest(&self.process, now)
    }

    /// Whether the thread `tid` of the process runs, or would run if it had a CPU.
    pub(super) fn is_ready(&self, tid: i32) -> bool {
        self.process.is_ready(tid)
    }

    /// The host refuses the priority of vCPUs for a thread of the process, for this reason.
    pub(super) fn priority_refused(&self, error: &io::Error) {
        if !self.is_refused.swap(true, Ordering::Relaxed) {
            self.notice(&format!(
                "runs without the pool's executor priority, because the host refuses that ({error}); give the pool \
                 CAP_SYS_NICE, and keep the guest's process out of control groups without real-time bandwidth"
            ));
        }
    }

    /// Whether the thread `tid` of the process has ended, or is about to.
    pub(super) fn has_ended(&self, tid: i32) -> bool {
        self.process.thread_state(tid) == ThreadState::Ends
    }

    /// Reports `what`, with the guest as the subject.
    pub(super) fn notice(&self, what: &str) {
        self.report.notice(self.number, what);
    }
}
