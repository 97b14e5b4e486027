//! From a guest's hint record to the policy's terms.

use baton_machine::hints::HintSnapshot;
use vcpu_sched::{Hints, VcpuId, Wait};

/// `first` is the policy's name of the guest's vCPU 0.
pub(crate) fn to_policy(snapshot: HintSnapshot, first: u32) -> Hints {
    Hints {
        depth: snapshot.depth,
        releases: snapshot.releases,
        wait: snapshot.wait.map(|wait| Wait {
            kind: wait.kind,
            lock: wait.lock,
            holder: VcpuId(first + wait.holder),
            holder_releases: wait.holder_releases,
        }),
    }
}
