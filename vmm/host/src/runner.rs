//! What starts and stops vCPUs: guests that are ready to run go in, numbers come out.

use std::sync::Arc;

use baton_config::GuestConfig;
use baton_machine::{ExitCounts, Guest, Vcpu};
use baton_observe::counters::serialize_for_summary;
use baton_observe::recorder::Moment;
use serde::Serialize;
use vcpu_sched::Counters;

use crate::executor::ExecutorReport;

/// A guest that is ready to run: what a scheduler gets.
#[derive(Debug)]
pub struct ReadyGuest {
    /// The guest.
    pub guest: Arc<Guest>,
    /// What the user wants for it.
    pub config: GuestConfig,
    /// Its vCPUs, in order.
    pub vcpus: Vec<Box<Vcpu>>,
}

/// A scheduler at work.
pub trait Runner {
    /// Stops all vCPUs and waits until none runs. Called once, also when all guests have ended by
    /// themselves.
    fn stop(self: Box<Self>) -> RunnerReport;
}

/// What a scheduler knows at the end.
#[derive(Debug, Default)]
pub struct RunnerReport {
    /// The numbers of each guest's vCPUs, in order.
    pub vcpus: Vec<Vec<VcpuAccount>>,
    /// CPU time of the whole process while it ran guests, ns; 0 where nobody is charged.
    pub process_ns: u64,
    /// What each host CPU of the pool did, where an executor was in charge of it.
    pub executors: Vec<ExecutorReport>,
    /// The moment to show, if one was to be recorded.
    pub moment: Option<Moment>,
}

/// What was counted for one vCPU. What the scheduler in charge does not count stays zero.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VcpuAccount {
    /// The counters of the policy, or as many of them as the host's scheduler gives. In JSON they are fields of
    /// the vCPU, under the names of [`baton_observe::counters`].
    #[serde(flatten, serialize_with = "serialize_for_summary")]
    pub counters: Counters,
    /// Its exits.
    pub exits: ExitCounts,
}
