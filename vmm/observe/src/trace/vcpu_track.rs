//! What the tracks of one vCPU show, as far as it follows from the records so far.

use vcpu_sched::{Ns, VcpuId};

use super::tracks::VcpuTracks;

/// What the track of a vCPU shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VcpuSlice {
    Nothing,
    Halted,
    Runnable,
    Throttled,
    /// The scheduling context carries this vCPU.
    Carries(VcpuId),
    Runs,
    /// The vCPU runs on the scheduling context of this donor.
    Proxied(VcpuId),
}

impl VcpuSlice {
    /// Whether the vCPU waits for a CPU meanwhile.
    pub(super) fn waits_for_cpu(self) -> bool {
        matches!(self, Self::Runnable | Self::Carries(_))
    }
}

/// What the track of a scheduling context shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScSlice {
    Idle,
    Carries,
    Throttled,
}

/// One vCPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct VcpuTrack {
    pub(super) tracks: VcpuTracks,
    pub(super) halted: bool,
    pub(super) throttled: bool,
    /// It has left the policy.
    pub(super) gone: bool,
    /// While it runs: the donor.
    pub(super) runs_on: Option<VcpuId>,
    /// The vCPU that its scheduling context carries.
    pub(super) carries: Option<VcpuId>,
    /// The policy has drawn its edge on a guess.
    pub(super) suspects: bool,
    /// Its preemption is deferred.
    pub(super) deferred: bool,
    /// Time that other vCPUs ran on its budget.
    pub(super) donated: Ns,
    pub(super) shown: VcpuSlice,
    pub(super) sc_shown: ScSlice,
    /// `shown` may be out of date.
    pub(super) dirty: bool,
}

impl VcpuTrack {
    /// A vCPU that has just joined.
    pub(super) fn new(tracks: VcpuTracks) -> Self {
        Self {
            tracks,
            halted: true,
            throttled: false,
            gone: false,
            runs_on: None,
            carries: None,
            suspects: false,
            deferred: false,
            donated: 0,
            shown: VcpuSlice::Nothing,
            sc_shown: ScSlice::Idle,
            dirty: false,
        }
    }

    /// What the track of this vCPU, `id`, should show now.
    pub(super) fn due(&self, id: VcpuId) -> VcpuSlice {
        match (self.runs_on, self.carries) {
            (Some(donor), _) if donor != id => VcpuSlice::Proxied(donor),
            (Some(_), _) => VcpuSlice::Runs,
            (None, _) if self.gone => VcpuSlice::Nothing,
            (None, Some(curr)) => VcpuSlice::Carries(curr),
            (None, None) if self.halted => VcpuSlice::Halted,
            (None, None) if self.throttled => VcpuSlice::Throttled,
            (None, None) => VcpuSlice::Runnable,
        }
    }
}
