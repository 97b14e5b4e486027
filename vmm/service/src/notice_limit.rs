//! How many lines of the log, and how many events, may be owed to one who may cause them without end.

use vcpu_sched::Ns;

/// A token bucket. What it refuses is counted.
#[derive(Clone, Debug)]
pub(crate) struct NoticeLimit {
    burst: u32,
    /// Time after which another notice may come, ns.
    refill_ns: Ns,
    left: u32,
    /// When the last one was added, ns.
    filled_at: Ns,
    refused: u64,
}

impl NoticeLimit {
    /// What the process of a guest reports of the guest: 8 notices at once, then one every 10 s.
    pub(crate) fn of_process() -> Self {
        Self::new(8, 10_000_000_000)
    }

    /// What a user does with guests: 64 notices at once, then 4 each second.
    pub(crate) fn of_user() -> Self {
        Self::new(64, 250_000_000)
    }

    fn new(burst: u32, refill_ns: Ns) -> Self {
        Self {
            burst,
            refill_ns,
            left: burst,
            filled_at: 0,
            refused: 0,
        }
    }

    /// Whether another notice may come at the time `now`, ns, and how many were refused since the last one.
    pub(crate) fn take(&mut self, now: Ns) -> Option<u64> {
        let added = now.saturating_sub(self.filled_at) / self.refill_ns;
        self.filled_at += added * self.refill_ns;
        let left = u64::from(self.left).saturating_add(added);
        self.left = left.min(u64::from(self.burst)) as u32;
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.refused))
            }
            None => {
                self.refused += 1;
                None
            }
        }
    }

    /// Whether nothing has been refused or taken that the time `now`, ns, does not make up for.
    pub(crate) fn is_unused(&self, now: Ns) -> bool {
        let added = now.saturating_sub(self.filled_at) / self.refill_ns;
        self.refused == 0 && u64::from(self.left).saturating_add(added) >= u64::from(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_come_at_once_then_one_at_a_time_and_those_between_are_counted() {
        let mut limit = NoticeLimit::new(3, 10);
        assert!((0..3).all(|_| limit.take(100) == Some(0)) && !limit.is_unused(129));
        assert!((0..5).all(|_| limit.take(109).is_none()));
        assert_eq!((limit.take(110), limit.take(110)), (Some(5), None));
        assert_eq!(limit.take(1_000), Some(1));
        assert!(limit.is_unused(2_000));
    }
}
