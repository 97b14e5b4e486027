//! Doorbells that change nothing. They cost the guest its own time and nothing of other guests', but
//! the guest's user should learn of them.

use vcpu_sched::Ns;

/// More than this in a second are a storm.
const MANY: u32 = 1_000;
const SECOND: Ns = 1_000_000_000;

/// Counts one guest's doorbells that changed nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StormDetector {
    since: Ns,
    count: u32,
    reported: bool,
}

impl StormDetector {
    /// Counts one more at `now`. True, once in the guest's life, when a storm has begun.
    pub(crate) fn count(&mut self, now: Ns) -> bool {
        if now.saturating_sub(self.since) > SECOND {
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        let is_new = self.count > MANY && !self.reported;
        self.reported |= is_new;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_reported_once_and_a_drizzle_never() {
        let mut drizzle = StormDetector::default();
        assert!(!(0..10_000).any(|ring| drizzle.count(ring * 2_000_000)));
        let mut storm = StormDetector::default();
        assert_eq!(
            (0..10_000)
                .filter(|ring| storm.count(ring * 20_000))
                .count(),
            1
        );
    }
}
