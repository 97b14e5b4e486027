//! A guest as the policy sees it.

use crate::ids::VcpuId;
use crate::state::disturbance_credit::DisturbanceCredit;

/// A guest as the policy sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuestState {
    /// vCPUs that are not halted: they divide the guest's weight.
    pub(crate) runnable: u32,
    /// All vCPUs that were added.
    pub(crate) vcpus: Vec<VcpuId>,
    /// The place in `vcpus` of the first that is tried as the donor of a worker.
    pub(crate) next_donor: usize,
    /// What its wake-ups may take from other guests.
    pub(crate) disturbance: DisturbanceCredit,
}
