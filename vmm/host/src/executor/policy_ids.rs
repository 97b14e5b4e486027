//! A guest's vCPUs have an index in the guest and an id in the policy: one into the other.

use std::sync::Arc;

use baton_machine::hints::HintSnapshot;
use vcpu_sched::{GuestId, Hints, VcpuId, Wait};

/// The policy's ids of one guest and its vCPUs. They need not follow one another, because the policy gives the
/// ids of guests that have left to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyIds {
    guest: GuestId,
    /// By index in the guest.
    vcpus: Arc<[VcpuId]>,
}

impl PolicyIds {
    /// The ids of `guest`, whose vCPUs are `vcpus` in the order of their indices.
    pub(crate) fn new(guest: GuestId, vcpus: Vec<VcpuId>) -> Self {
        let vcpus = vcpus.into();
        Self { guest, vcpus }
    }

    /// The policy's id of the guest.
    pub(crate) fn guest(&self) -> GuestId {
        self.guest
    }

    /// The policy's ids of the vCPUs, in the order of their indices.
    pub(crate) fn vcpus(&self) -> &Arc<[VcpuId]> {
        &self.vcpus
    }

    /// The policy's id of the vCPU with index `index` in the guest; `None` if there is no such vCPU.
    pub(crate) fn to_policy(&self, index: u32) -> Option<VcpuId> {
        self.vcpus.get(index as usize).copied()
    }

    /// The index in the guest of the vCPU that the policy calls `id`; `None` if that is not of this guest.
    pub(crate) fn to_guest(&self, id: VcpuId) -> Option<u32> {
        (0..)
            .zip(&*self.vcpus)
            .find_map(|(index, &own)| (own == id).then_some(index))
    }

    /// A hint record of this guest in the policy's terms.
    pub(crate) fn hints(&self, snapshot: HintSnapshot) -> Hints {
        let wait = snapshot.wait.and_then(|wait| {
            Some(Wait {
                kind: wait.kind,
                lock: wait.lock,
                holder: self.to_policy(wait.holder)?,
                holder_releases: wait.holder_releases,
            })
        });
        Hints {
            depth: snapshot.depth,
            releases: snapshot.releases,
            wait,
            waits: snapshot.waits,
            is_guess: snapshot.is_guess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_becomes_an_id_and_the_same_index_again_though_ids_have_gaps() {
        let ids = PolicyIds::new(GuestId(1), [7, 2, 9].map(VcpuId).to_vec());
        for (index, id) in [(0, 7), (1, 2), (2, 9)] {
            assert_eq!(ids.to_policy(index), Some(VcpuId(id)));
            assert_eq!(ids.to_guest(VcpuId(id)), Some(index));
        }
        assert_eq!(ids.to_policy(3), None);
        assert_eq!(ids.to_guest(VcpuId(8)), None);
    }
}
