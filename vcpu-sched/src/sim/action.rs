//! What a simulated vCPU does next.

use crate::ids::VcpuId;
use crate::rules::stop::StopReason;

/// What a vCPU does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It runs on; ask `World::runs_for`.
    Run,
    /// It leaves the CPU.
    Stop(StopReason),
    /// It wakes another one, and goes on.
    Wake(VcpuId),
    /// It rings because it released, and says who has the lock now.
    Release(Option<VcpuId>),
    /// It says that it handed this lock to another one, and goes on.
    HandOver(u64, VcpuId),
}
