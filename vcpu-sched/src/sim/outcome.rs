//! What came of a simulation.

use crate::counters::Counters;
use crate::ids::{GuestId, Ns, VcpuId};

/// What came of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuOutcome {
    /// Its guest.
    pub guest: GuestId,
    /// What the policy counted.
    pub counters: Counters,
    /// Locks taken.
    pub acquisitions: u64,
    /// The longest wait for a lock, ns; one that did not end counts up to the end.
    pub wait_max_ns: Ns,
    /// Sum of all waits for locks, ns.
    pub wait_sum_ns: Ns,
    /// Whole passes through its script.
    pub passes: u64,
    /// Doorbells rung because the holder was not running, or at a release.
    pub rings: u64,
}

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<E> {
    /// Each vCPU, by its number.
    pub vcpus: Vec<VcpuOutcome>,
    /// The listener: by default the trace.
    pub events: E,
    /// When it ended, ns.
    pub end: Ns,
}

impl<E> Outcome<E> {
    /// What came of this vCPU.
    ///
    /// # Panics
    /// If the simulation had no such vCPU.
    #[must_use]
    pub fn vcpu(&self, vcpu: VcpuId) -> &VcpuOutcome {
        &self.vcpus[vcpu.index()]
    }

    /// The vCPUs of a guest.
    pub fn guest(&self, guest: GuestId) -> impl Iterator<Item = &VcpuOutcome> {
        self.vcpus.iter().filter(move |vcpu| vcpu.guest == guest)
    }

    /// CPU time that a guest ran, on whichever vCPU, ns.
    #[must_use]
    pub fn guest_runtime_ns(&self, guest: GuestId) -> Ns {
        self.guest(guest).map(|v| v.counters.runtime_ns).sum()
    }

    /// Deadlines missed by all vCPUs.
    #[must_use]
    pub fn deadline_misses(&self) -> u64 {
        self.vcpus.iter().map(|v| v.counters.deadline_misses).sum()
    }
}
