//! All numbers, copied at one moment, so that formatting needs no lock.

use vcpu_sched::Counters;

use super::gauges::ExecutorCounts;
use super::pool_now::PoolNow;
use super::tally::VcpuTally;
use crate::names::Names;

/// What the metrics show of a guest.
#[derive(Clone, Debug, Default)]
pub struct GuestNow {
    /// Its name.
    pub name: String,
    /// Where its hints come from at the moment.
    pub hints: String,
    /// How often it has been started again.
    pub restarts: u64,
}

/// All numbers that the metrics show.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// Names of what follows.
    pub names: Names,
    /// The guests.
    pub guests: Vec<GuestNow>,
    /// Of each vCPU: the policy's counters, and what was counted from the policy's events.
    pub vcpus: Vec<(Counters, VcpuTally)>,
    /// Of each host CPU: its executor's counters, and how often it was kicked.
    pub cpus: Vec<(ExecutorCounts, u64)>,
    /// Which host CPUs can be used, and how much of the reservations is in force.
    pub pool: PoolNow,
}
