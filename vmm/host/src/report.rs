//! What a scheduler reports at the end.

use baton_machine::ExitCounts;
use baton_observe::counters::{deserialize_from_summary, serialize_for_summary};
use baton_observe::recorder::Moment;
use serde::{Deserialize, Serialize};
use vcpu_sched::Counters;

/// What a scheduler reports at the end.
#[derive(Debug, Default)]
pub struct RunnerReport {
    /// The numbers of each guest's vCPUs, in order.
    pub vcpus: Vec<Vec<VcpuAccount>>,
    /// CPU time of the whole process while it ran guests, ns; 0 where the scheduler charges nothing.
    pub process_ns: u64,
    /// What each executor did with its host CPU, if there were executors.
    pub executors: Vec<ExecutorReport>,
    /// The moment for the timeline, if one was to be recorded.
    pub moment: Option<Moment>,
}

/// What one executor did with its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorReport {
    /// Spent on guests, their exits and decisions about them, CPU time, ns; charged to them.
    pub busy_ns: u64,
    /// Spent on wake-ups for nothing and on decisions to sleep, CPU time, ns; charged to no guest.
    pub unassigned_ns: u64,
    /// Spent by the host on other things while the executor was not asleep, ns.
    pub host_steal_ns: u64,
    /// Asleep for lack of work, ns.
    pub idle_ns: u64,
    /// Asleep because the host CPU could not be used: offline, or not permitted to this process; ns.
    pub away_ns: u64,
    /// Decisions of the policy.
    pub decisions: u64,
}

/// What was counted for one vCPU. What the scheduler in charge does not count stays zero.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VcpuAccount {
    /// The counters of the policy, or as many of them as the host's scheduler gives. In JSON they are fields of
    /// the vCPU, under the names of [`baton_observe::counters`].
    #[serde(
        flatten,
        serialize_with = "serialize_for_summary",
        deserialize_with = "deserialize_from_summary"
    )]
    pub counters: Counters,
    /// Its exits.
    pub exits: ExitCounts,
}

impl VcpuAccount {
    /// Adds what was counted for the same vCPU at another time.
    pub fn add(&mut self, more: &Self) {
        self.counters.add(&more.counters);
        self.exits.add(&more.exits);
    }
}
