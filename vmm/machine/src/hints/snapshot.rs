//! A checked copy of a vCPU's hints.

use vcpu_sched::WaitKind;

/// That a vCPU waits for another one of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedWait {
    /// How the vCPU waits.
    pub kind: WaitKind,
    /// The lock's name within the guest.
    pub lock: u64,
    /// Index of the vCPU that must run first: below the guest's number of vCPUs, and not the waiter.
    pub holder: u32,
    /// The holder's release count that the waiter has read, modulo 2^24. To be compared with
    /// [`HintSnapshot::releases`] of the holder.
    pub holder_releases: u32,
}

/// A checked copy of the hints of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintSnapshot {
    /// Locks that the vCPU holds now.
    pub depth: u32,
    /// Locks that the vCPU has released so far, modulo 2^24.
    pub releases: u32,
    /// For which vCPU it waits, if its record makes sense.
    pub wait: Option<PublishedWait>,
    /// Whether it waits for a vCPU that is not known.
    pub waits: bool,
    /// Whether the host has inferred this; otherwise the guest has published it.
    pub is_guess: bool,
}
