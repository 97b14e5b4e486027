//! What a pool does with the guests of other processes, as this crate needs it.

use std::sync::Arc;

use baton_host::executor::{JoinErrorKind, PoolHandle, ProcessReport};
use baton_link::foreign_process::ForeignProcess;
use baton_link::join::JoinedGuest;
use baton_link::message::{GuestEnded, JoinRequest};
use vcpu_sched::Counters;

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

/// A pool that runs the guests of other processes.
pub trait ProcessPool: Send + Sync {
    /// Has the guest `joined` of `process` join, as `request` describes it. Returns its number.
    ///
    /// # Errors
    /// Why it cannot join; nothing of it stays behind.
    fn join(
        &self,
        joined: JoinedGuest,
        request: &JoinRequest,
        process: ForeignProcess,
        report: Arc<dyn ProcessReport>,
    ) -> Result<u64, Refusal>;

    /// The guest `number` leaves: its process has reported that it ended as in `ended`, or is gone. Whoever waits for
    /// its vCPUs returns. May wait until all of them are back. Returns what was counted for each vCPU, or nothing if
    /// the guest had been taken out before.
    fn process_gone(&self, number: u64, ended: Option<GuestEnded>) -> Vec<Counters>;

    /// The process of guest `number` reports another source of the guest's hints.
    fn hints_reported(&self, number: u64, source: &str);

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
        process: ForeignProcess,
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

    fn process_gone(&self, number: u64, ended: Option<GuestEnded>) -> Vec<Counters> {
        // An executor may have taken it out because its process failed.
        let account = self.0.process_gone(number, ended);
        let vcpus = account.map_or_else(|_| Vec::new(), |account| account.vcpus);
        vcpus.into_iter().map(|vcpu| vcpu.counters).collect()
    }

    fn hints_reported(&self, number: u64, source: &str) {
        self.0.hints_reported(number, source);
    }

    fn wake_reported(&self, number: u64) -> usize {
        self.0.wake_reported(number)
    }
}
