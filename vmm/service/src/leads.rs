//! What guests that have left had before others, by their users. The next guest of the user starts with that, so that
//! nobody gains CPU time by leaving and joining again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vcpu_sched::Ns;

/// How long it is kept, ns. By then all others have had their slices, unless there are thousands.
const KEPT: Ns = 10_000_000_000;
/// Most that are kept for one user, who can have as many guests at a time.
const MAX_OF_USER: usize = 256;

/// What a guest that has left was ahead of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lead {
    /// CPU time, ns.
    ns: Ns,
    until: Ns,
}

/// The leads of all users.
#[derive(Debug, Default)]
pub(crate) struct Leads(Mutex<HashMap<u32, Vec<Lead>>>);

impl Leads {
    fn all(&self) -> MutexGuard<'_, HashMap<u32, Vec<Lead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest of user `uid` has left at the time `now`, ns, which was ahead of others by `ns` of CPU time.
    pub(crate) fn add(&self, uid: u32, ns: Ns, now: Ns) {
        let mut all = self.all();
        all.retain(|_, leads| {
            leads.retain(|lead| lead.until > now);
            !leads.is_empty()
        });
        if ns == 0 {
            return;
        }
        let leads = all.entry(uid).or_default();
        let until = now.saturating_add(KEPT);
        leads.push(Lead { ns, until });
        leads.sort_unstable_by(|one, other| other.cmp(one));
        leads.truncate(MAX_OF_USER);
    }

    /// Takes what a guest of user `uid` owes that joins at the time `now`, ns: the largest lead. Each guest that has
    /// left is paid for by one that joins.
    pub(crate) fn take(&self, uid: u32, now: Ns) -> Ns {
        let mut all = self.all();
        let Some(leads) = all.get_mut(&uid) else {
            return 0;
        };
        leads.retain(|lead| lead.until > now);
        match leads.is_empty() {
            true => 0,
            false => leads.remove(0).ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guest_that_joins_owes_what_one_that_has_left_was_ahead_the_largest_first() {
        let leads = Leads::default();
        for ns in [5, 9, 0, 7] {
            leads.add(1000, ns, 0);
        }
        assert_eq!(leads.take(1001, 0), 0, "another user owes nothing");
        assert_eq!([9, 7, 5, 0].map(|_| leads.take(1000, 1)), [9, 7, 5, 0]);
        leads.add(1000, 5, 0);
        assert_eq!(leads.take(1000, KEPT), 0, "it is forgotten");
    }

    #[test]
    fn leads_have_bounded_memory() {
        let leads = Leads::default();
        for now in 0..10_000 {
            leads.add(1000, now + 1, 0);
        }
        assert_eq!(leads.all()[&1000].len(), MAX_OF_USER);
        leads.add(1001, 1, KEPT);
        assert_eq!(leads.all().len(), 1);
    }
}
