//! A domain: the host CPUs that serve one queue of claims, those with the same pinning.

use crate::classes::rank::Rank;
use crate::cpuset::CpuSet;
use crate::state::heap::Heap;
use crate::state::timer_queue::Timers;

/// A queue of claims with the same pinning.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// The pinning.
    pub(crate) own: CpuSet,
    /// The CPUs that serve it now: those of its own that are there.
    pub(crate) cpus: CpuSet,
    pub(crate) queue: Heap<Rank>,
    pub(crate) timers: Timers,
    /// Virtual time of the fair order: the largest start tag dispatched on these CPUs.
    pub(crate) virtual_time: u128,
}
