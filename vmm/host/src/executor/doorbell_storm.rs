//! Doorbells that change nothing. They cost the guest its own time, so nobody else pays for them,
//! but its user should know.

use vcpu_sched::Ns;

/// More than this in a second are worth a word.
const MANY: u32 = 1_000;
const SECOND: Ns = 1_000_000_000;

/// A guest's doorbells that changed nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VainRings {
    since: Ns,
    count: u32,
    told: bool,
}

impl VainRings {
    /// One more. True, once in the guest's life, if there are too many.
    pub(crate) fn count(&mut self, now: Ns) -> bool {
        if now.saturating_sub(self.since) > SECOND {
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        let tell = self.count > MANY && !self.told;
        self.told |= tell;
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_told_once_and_a_drizzle_never() {
        let mut drizzle = VainRings::default();
        assert!(!(0..10_000).any(|ring| drizzle.count(ring * 2_000_000)));
        let mut storm = VainRings::default();
        assert_eq!(
            (0..10_000)
                .filter(|ring| storm.count(ring * 20_000))
                .count(),
            1
        );
    }
}
