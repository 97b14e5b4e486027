//! The guests of other processes in a pool, by their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::foreign_guest::{ForeignGuest, GuestNumber};
use super::foreign_vcpu::ForeignSleep;
use crate::sync::Mutex;

/// The ways to a guest of another process.
pub(crate) struct ForeignWays {
    pub(super) guest: Arc<ForeignGuest>,
    /// Where its vCPUs sleep, in their order.
    pub(super) sleeps: Vec<Arc<dyn ForeignSleep>>,
}

/// The guests of other processes.
#[derive(Default)]
pub(crate) struct ForeignTable(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    next: GuestNumber,
    guests: BTreeMap<GuestNumber, Arc<ForeignWays>>,
}

impl ForeignTable {
    /// A number that no guest of the pool has had.
    pub(super) fn new_number(&self) -> GuestNumber {
        let mut rows = self.0.lock();
        rows.next += 1;
        rows.next
    }

    /// Adds the guest with this number.
    pub(super) fn add(&self, number: GuestNumber, ways: ForeignWays) {
        self.0.lock().guests.insert(number, Arc::new(ways));
    }

    /// Forgets the guest with this number.
    pub(super) fn remove(&self, number: GuestNumber) -> Option<Arc<ForeignWays>> {
        self.0.lock().guests.remove(&number)
    }

    /// The guest with this number; `None` if its process is gone.
    pub(super) fn get(&self, number: GuestNumber) -> Option<Arc<ForeignWays>> {
        self.0.lock().guests.get(&number).cloned()
    }

    /// All guests of other processes.
    pub(super) fn all(&self) -> Vec<Arc<ForeignWays>> {
        self.0.lock().guests.values().cloned().collect()
    }
}
