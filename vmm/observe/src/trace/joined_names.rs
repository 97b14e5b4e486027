//! The names of vCPUs that have joined since the trace was prepared, on their way to the writer.
//!
//! Records have a fixed size and no room for names. So the name of a vCPU is left here under a number before the
//! vCPU joins, and the record of its joining has that number. It names the vCPU's tracks, too: ids of the policy
//! are given to others when a guest has left, and numbers are not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::names::{Names, VcpuName};

/// The name of a vCPU, and the number of the first vCPU of its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JoinedName {
    pub(super) name: VcpuName,
    pub(super) first: u32,
}

/// The names that the writer has not taken yet.
#[derive(Debug)]
pub struct JoinedNames(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    next: u32,
    names: BTreeMap<u32, JoinedName>,
}

impl JoinedNames {
    /// None yet. The numbers begin after those of the vCPUs in `names`.
    pub(super) fn after(names: &Names) -> Self {
        Self(Mutex::new(Waiting {
            next: names.vcpus.len() as u32,
            names: BTreeMap::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the names of the vCPUs of one guest for the writer. Returns the number of the first; those of the
    /// others follow.
    pub fn add(&self, names: Vec<VcpuName>) -> u32 {
        let mut waiting = self.lock();
        let first = waiting.next;
        waiting.next += names.len() as u32;
        let named = (first..).zip(names);
        let named = named.map(|(number, name)| (number, JoinedName { name, first }));
        waiting.names.extend(named);
        first
    }

    /// Takes back `count` names from number `first` on, because the guest did not join.
    pub fn withdraw(&self, first: u32, count: u32) {
        let mut waiting = self.lock();
        for number in first..first + count {
            waiting.names.remove(&number);
        }
    }

    /// Takes the name with this number.
    pub(super) fn take(&self, number: u32) -> Option<JoinedName> {
        self.lock().names.remove(&number)
    }
}
