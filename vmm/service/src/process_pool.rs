//! What a pool does with the guests of other processes, as this crate needs it.

use std::sync::Arc;

use baton_host::executor::{GuestAccount, JoinErrorKind, PoolHandle, ProcessReport};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::JoinedGuest;
use baton_link::message::{GuestEnded, JoinRequest};
use vcpu_sched::{Counters, Ns};

use crate::fitting::would_fit;

/// A pool refuses a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence with the cause and what to do.
    pub reason: String,
    /// What would be granted instead, if that is known.
    pub would_fit: Option<String>,
}

impl Refusal {
    /// A refusal of which nothing more is known.
    pub(crate) fn new(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
            would_fit: None,
        }
    }
}

/// What is left of a guest that has left the pool.
#[derive(Debug, Default)]
pub struct LeftBehind {
    /// What was counted for each vCPU; nothing if the guest had been taken out before.
    pub counters: Vec<Counters>,
    /// CPU time by which it was ahead of others, ns.
    pub lead_ns: Ns,
}

impl From<GuestAccount> for LeftBehind {
    fn from(account: GuestAccount) -> Self {
        let vcpus = account.vcpus.into_iter();
        Self {
            lead_ns: account.lead_ns,
            counters: vcpus.map(|vcpu| vcpu.counters).collect(),
        }
    }
}

/// A pool that runs the guests of other processes.
pub trait ProcessPool: Send + Sync {
    /// Has the guest `joined` of `process` join, as `request` describes it. Returns its number. It starts as if it had
    /// just had `lead` ns of CPU time.
    ///
    /// # Errors
    /// Why it cannot join; nothing of it stays behind.
    fn join(
        &self,
        joined: JoinedGuest,
        request: &JoinRequest,
        process: (ForeignProcess, Ns),
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal>;

    /// The guest `number` leaves: its process has reported that it ended as in `ended`, or is gone. Whoever waits for
    /// its vCPUs returns. May wait until all of them are back. Returns what it leaves behind.
    fn process_gone(&self, number: u64, ended: Option<GuestEnded>) -> LeftBehind;

    /// The process of guest `number` reports another source of the guest's hints.
    fn hints_reported(&self, number: u64, source: &str);

    /// The process of guest `number` reports that the guest has ended and is to start again there. Does not block.
    fn restarting(&self, number: u64);

    /// The process of guest `number` reports that the guest has started again, `restarts` times so far.
    fn restarted(&self, number: u64, restarts: u32);

    /// The process of guest `number` reports that vCPUs that slept have woken. Returns how many have. Does not block.
    fn wake_reported(&self, number: u64) -> usize;
}

/// The pool of this process.
#[derive(Debug)]
pub struct OwnPool(pub PoolHandle);

impl ProcessPool for OwnPool {
    fn join(
        &self,
        joined: JoinedGuest,
        request: &JoinRequest,
        process: (ForeignProcess, Ns),
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal> {
        let number = self.0.join_process(joined, request, process, report);
        number.map_err(|error| Refusal {
            reason: error.to_string(),
            would_fit: match &error.kind {
                JoinErrorKind::Admission { source, .. } => would_fit(source),
                _ => None,
            },
        })
    }

    fn process_gone(&self, number: u64, ended: Option<GuestEnded>) -> LeftBehind {
        // The pool may have stopped, or an executor have taken it out because its process failed.
        let account = self.0.process_gone(number, ended);
        account.map_or_else(|_| LeftBehind::default(), LeftBehind::from)
    }

    fn hints_reported(&self, number: u64, source: &str) {
        self.0.hints_reported(number, source);
    }

    fn restarting(&self, number: u64) {
        self.0.restarting(number);
    }

    fn restarted(&self, number: u64, restarts: u32) {
        self.0.restarted(number, restarts);
    }

    fn wake_reported(&self, number: u64) -> usize {
        self.0.wake_reported(number)
    }
}
