//! A guest's vCPUs have an index in the guest and a number in the policy: one into the other.

use baton_machine::hints::HintSnapshot;
use vcpu_sched::{Hints, VcpuId, Wait};

/// The policy's numbers for the vCPUs of one guest, which follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PolicyIds {
    /// Number of the vCPU with index 0.
    first: u32,
}

impl PolicyIds {
    /// The numbers of a guest whose first vCPU has number `first`.
    pub(crate) fn starting_at(first: VcpuId) -> Self {
        Self { first: first.0 }
    }

    /// The numbers of a guest one of whose vCPUs has index `index` and number `id`.
    pub(crate) fn of_vcpu(id: VcpuId, index: u32) -> Self {
        Self {
            first: id.0 - index,
        }
    }

    /// The policy's number for the vCPU with index `index` in the guest.
    pub(crate) fn to_policy(self, index: u32) -> VcpuId {
        VcpuId(self.first + index)
    }

    /// The index in the guest of the vCPU that the policy calls `id`, which is one of this guest.
    pub(crate) fn to_guest(self, id: VcpuId) -> u32 {
        id.0 - self.first
    }

    /// A hint record of this guest in the policy's terms.
    pub(crate) fn hints(self, snapshot: HintSnapshot) -> Hints {
        Hints {
            depth: snapshot.depth,
            releases: snapshot.releases,
            wait: snapshot.wait.map(|wait| Wait {
                kind: wait.kind,
                lock: wait.lock,
                holder: self.to_policy(wait.holder),
                holder_releases: wait.holder_releases,
            }),
            waits: snapshot.waits,
            is_guess: snapshot.is_guess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_becomes_a_number_and_the_same_index_again() {
        let ids = PolicyIds::starting_at(VcpuId(7));
        assert_eq!(ids.to_policy(2), VcpuId(9));
        assert_eq!(ids.to_guest(VcpuId(9)), 2);
        assert_eq!(PolicyIds::of_vcpu(VcpuId(9), 2), ids);
    }
}
