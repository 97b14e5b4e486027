//! The names of a pool's guests and vCPUs at one moment, for observers. They are copied under the pool's lock as
//! references, and become text without it.

use std::sync::Arc;

use baton_machine::GuestRecord;
use baton_observe::trace::VcpuName;
use vcpu_sched::VcpuId;

use super::policy_ids::PolicyIds;
use super::pool_state::PoolState;

/// The guests of a pool at one moment, in the order in which they joined.
pub(super) struct GuestNames(Vec<(Arc<GuestRecord>, PolicyIds)>);

impl PoolState {
    /// The guests at this moment.
    pub(super) fn names(&self) -> GuestNames {
        let guests = self.guests.in_order().into_iter();
        let named = guests.map(|guest| (Arc::clone(guest.record()), guest.ids().clone()));
        GuestNames(named.collect())
    }
}

impl GuestNames {
    /// What is known of each guest.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<GuestRecord>> {
        self.0.iter().map(|(record, _)| record)
    }

    /// The ids of all vCPUs, in order.
    pub(super) fn vcpus(&self) -> Vec<VcpuId> {
        let vcpus = self.0.iter().flat_map(|(_, ids)| ids.vcpus().iter());
        vcpus.copied().collect()
    }

    /// The names of all vCPUs, in the order of [`GuestNames::vcpus`].
    pub(super) fn vcpu_names(&self) -> Vec<VcpuName> {
        let guests = self.0.iter();
        let names = guests.flat_map(|(record, ids)| vcpu_names(record, ids.vcpus().len()));
        names.collect()
    }

    /// The name of `id`; `None` if no guest has it.
    pub(super) fn name(&self, id: VcpuId) -> Option<VcpuName> {
        self.0.iter().find_map(|(record, ids)| {
            let index = ids.to_guest(id)?;
            Some(name_of(record, index))
        })
    }
}

/// The names of the `count` vCPUs of the guest of `record`.
pub(super) fn vcpu_names(record: &GuestRecord, count: usize) -> impl Iterator<Item = VcpuName> {
    (0..count as u32).map(|index| name_of(record, index))
}

fn name_of(record: &GuestRecord, index: u32) -> VcpuName {
    VcpuName {
        guest: record.number,
        guest_name: record.name.clone(),
        index,
    }
}
