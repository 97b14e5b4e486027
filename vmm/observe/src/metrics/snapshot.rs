//! All numbers, copied at one moment: formatting needs no lock.

use vcpu_sched::Counters;

pub use super::gauges::ExecutorCounts;
pub use super::pool_now::PoolNow;
pub use super::tally::VcpuTally;
use crate::trace::Names;

/// All numbers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Names of what follows.
    pub names: Names,
    /// Of each vCPU: the policy's counters, and what was counted from its events.
    pub vcpus: Vec<(Counters, VcpuTally)>,
    /// Of each host CPU: its executor's counters, and its kicks.
    pub cpus: Vec<(ExecutorCounts, u64)>,
    /// Which host CPUs can be used, and what is kept.
    pub pool: PoolNow,
}
