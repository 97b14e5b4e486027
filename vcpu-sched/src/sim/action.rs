//! What a simulated vCPU does next.

use crate::ids::VcpuId;
use crate::rules::stop::StopReason;

/// What a vCPU does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It runs on, for as long as `World::runs_for` returns.
    Run,
    /// It leaves the CPU.
    Stop(StopReason),
    /// It wakes another vCPU, and goes on.
    Wake(VcpuId),
    /// It rings because it released a lock, and reports which vCPU has the lock now.
    Release(Option<VcpuId>),
    /// It reports that it handed this lock to another vCPU, and goes on.
    HandOver(u64, VcpuId),
}
