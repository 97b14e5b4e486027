//! The guests of a pool, by their ids in the policy.

use baton_machine::GuestRecord;
use vcpu_sched::GuestId;

use super::pool_guest::{Membership, PoolGuest};

/// The guests of a pool.
#[derive(Default)]
pub(crate) struct GuestTable {
    rows: Vec<Option<PoolGuest>>,
    /// How many have joined so far.
    joined: u64,
}

impl GuestTable {
    /// Adds `guest` at its id.
    pub(crate) fn add(&mut self, mut guest: PoolGuest) {
        let index = guest.ids().guest().index();
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, || None);
        }
        guest.order = self.joined;
        self.joined += 1;
        self.rows[index] = Some(guest);
    }

    /// Forgets the guest `id`.
    pub(crate) fn remove(&mut self, id: GuestId) -> Option<PoolGuest> {
        self.rows.get_mut(id.index())?.take()
    }

    pub(crate) fn get(&self, id: GuestId) -> Option<&PoolGuest> {
        self.rows.get(id.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: GuestId) -> Option<&mut PoolGuest> {
        self.rows.get_mut(id.index())?.as_mut()
    }

    /// All guests whose names are taken, in the order in which they joined.
    pub(crate) fn in_order(&self) -> Vec<&PoolGuest> {
        let present = |guest: &&PoolGuest| guest.membership != Membership::Left;
        let mut guests: Vec<_> = self.rows.iter().flatten().filter(present).collect();
        guests.sort_by_key(|guest| guest.order);
        guests
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PoolGuest> {
        self.rows.iter_mut().flatten()
    }

    /// The id of the guest that has this name now.
    pub(crate) fn named(&self, name: &str) -> Option<GuestId> {
        let mut guests = self.rows.iter().flatten();
        let guest = guests.find(|guest| guest.has_name(name))?;
        Some(guest.ids().guest())
    }

    /// The id of the guest of `record`. Not by its name, which may be that of another guest by now.
    pub(crate) fn of_record(&self, record: &GuestRecord) -> Option<GuestId> {
        let mut guests = self.rows.iter().flatten();
        let guest = guests.find(|guest| std::ptr::eq(&**guest.record(), record))?;
        Some(guest.ids().guest())
    }
}
