//! The guests of a pool, and what joins it at its start.

use std::sync::Arc;

use baton_machine::{Guest, GuestRecord};
use vcpu_sched::{VcpuId, WorkerId};

use super::doorbell_storm::StormDetector;
use super::policy_ids::PolicyIds;

/// A guest of the pool.
pub(crate) struct PoolGuest {
    /// Not the guest itself, which has to go when it has ended.
    record: Arc<GuestRecord>,
    ids: PolicyIds,
    /// The policy's numbers for the threads of its devices.
    pub(crate) workers: Vec<WorkerId>,
    /// Detects doorbells that change nothing.
    pub(crate) storm: StormDetector,
    /// Its vCPUs have left the policy.
    has_left: bool,
}

impl PoolGuest {
    /// What is known of the guest, whether or not it has ended.
    pub(crate) fn record(&self) -> &Arc<GuestRecord> {
        &self.record
    }

    /// The policy's number for its vCPU `index`; `None` if it has no such vCPU.
    pub(crate) fn vcpu(&self, index: u32) -> Option<VcpuId> {
        (index < self.record.vcpus()).then(|| self.ids.to_policy(index))
    }

    /// The policy's numbers for its vCPUs.
    pub(crate) fn vcpus(&self) -> impl Iterator<Item = VcpuId> + use<> {
        let ids = self.ids;
        (0..self.record.vcpus()).map(move |index| ids.to_policy(index))
    }

    /// Its vCPUs leave the policy. False: they have before.
    pub(crate) fn leave_policy(&mut self) -> bool {
        !std::mem::replace(&mut self.has_left, true)
    }
}

/// A guest that joins the pool.
pub(crate) struct NewGuest {
    pub(crate) guest: Arc<Guest>,
    /// The policy's number for its vCPU 0; those of the others follow.
    pub(crate) first: VcpuId,
    /// The policy's numbers for the threads of its devices.
    pub(crate) workers: Vec<WorkerId>,
}

impl From<NewGuest> for PoolGuest {
    fn from(new: NewGuest) -> Self {
        Self {
            record: Arc::clone(new.guest.record()),
            ids: PolicyIds::starting_at(new.first),
            workers: new.workers,
            storm: StormDetector::default(),
            has_left: false,
        }
    }
}

/// A vCPU that joins the pool.
pub(crate) struct NewVcpu {
    /// Name of its guest.
    pub(crate) guest_name: String,
    /// Its index in the guest.
    pub(crate) index: u32,
    /// The host CPUs on which it may run, and its thread may sleep.
    pub(crate) host_cpus: Vec<usize>,
}
