//! A guest as the policy sees it.

use crate::ids::VcpuId;
use crate::state::disturbance_credit::Credit;

/// A guest as the policy sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guest {
    /// vCPUs that are not halted: they divide the guest's weight.
    pub(crate) runnable: u32,
    /// All that were added.
    pub(crate) vcpus: Vec<VcpuId>,
    /// The place in `vcpus` of the one that pays next for a worker.
    pub(crate) next_payer: usize,
    /// What its wake-ups may take from others.
    pub(crate) credit: Credit,
}
