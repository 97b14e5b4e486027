//! How soon a vCPU is looked at that publishes no hints.
//!
//! A look is an exit by the timer and a few reads. Two kinds of looks have a pace of their own:
//!
//! - At a vCPU that is to release a lock. The look should come after the release and before the vCPU queues
//!   again: then the vCPU is out of the queue. If it is found to spin, the look came too late, or the vCPU has
//!   not had the lock at all; if it still holds something, the look came too early. So the time is found by
//!   trial. A pseudo-random part keeps the looks out of step with the guest, and makes up for an entry that
//!   takes a little longer or shorter than estimated. The estimate is that of an exit. On a host that is itself a
//!   guest an exit may take tens of microseconds longer than an entry, and then all looks come too late. So once
//!   [`LATE_ROW`] looks in a row have found the vCPU spinning, every other one comes earlier by a random time, and
//!   the last such time at which the vCPU was found free is kept.
//! - At a vCPU that runs for itself, to find out whether it spins. The more turns pass in which it does not,
//!   the later the first look of a turn comes. There are none while no vCPU is known for which it may wait,
//!   unless it was found to spin lately: the end of each turn shows that without a look.

/// Times, ns.
const FIRST_RELEASE: u64 = 2_000;
const SHORTEST_RELEASE: u64 = 500;
const LONGEST_RELEASE: u64 = 50_000;
const FIRST_WAIT: u64 = 100_000;
const LONGEST_WAIT: u64 = 1_600_000;

/// A vCPU that spun at the end of a turn of its own is looked at in so many more turns, whatever else is known.
const ALERT_TURNS: u32 = 8;

/// Of so many looks in a row that found a vCPU spinning, the first [`SHORT_ROW`] come as soon as the pace
/// requires. The others come after [`RARE_RELEASE`], ns, because short ones do not pay.
const ROW: u32 = 80;
const SHORT_ROW: u32 = 64;
const RARE_RELEASE: u64 = 200_000;

/// So many looks in a row have to find a vCPU spinning before it is tried whether they come too late.
const LATE_ROW: u32 = 8;

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The vCPU holds nothing.
    Free,
    /// It holds something, and does not spin.
    Holds,
    /// It spins.
    Spins,
}

/// The pace of the looks at one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookPace {
    release: u64,
    /// An entry takes so much less than estimated, ns.
    early: u64,
    /// What was tried in place of `early` for the look that comes next.
    trial: Option<u64>,
    wait: u64,
    /// Turns still to come in which it is looked at because it spun before.
    alert: u32,
    /// So many looks in a row found it spinning that was to release a lock.
    spun: u32,
    random: u32,
}

impl Default for LookPace {
    fn default() -> Self {
        Self {
            release: FIRST_RELEASE,
            early: 0,
            trial: None,
            wait: FIRST_WAIT,
            alert: 0,
            spun: 0,
            random: 1,
        }
    }
}

impl LookPace {
    /// After how long, ns, a look is due at a vCPU that is to release a lock, if its entry takes about `entry`, ns.
    pub fn until_release(&mut self, entry: u64) -> u64 {
        if self.spun % ROW >= SHORT_ROW {
            return entry.saturating_add(RARE_RELEASE);
        }
        let is_trial = self.spun >= LATE_ROW && self.spun.is_multiple_of(2);
        self.trial = is_trial.then(|| self.random_below(entry - entry / 4 + 1));
        let early = self.trial.unwrap_or(self.early).min(entry);
        let spread = (entry / 8).saturating_add(self.release / 4);
        let part = self.random_below(2 * spread + 1);
        ((entry - early).saturating_add(self.release) + part).saturating_sub(spread)
    }

    /// A pseudo-random number less than `bound`, which is not 0.
    fn random_below(&mut self, bound: u64) -> u64 {
        // Source: the generator of Numerical Recipes, "ranqd1".
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        u64::from(self.random >> 16) % bound
    }

    /// The first look at a vCPU that ran for [`LookPace::until_release`] has found this.
    pub fn looked_for_release(&mut self, found: Look) {
        match found {
            Look::Free => {
                self.spun = 0;
                self.early = self.trial.unwrap_or(self.early);
            }
            Look::Holds => {
                self.spun = 0;
                self.release = (self.release + self.release / 8).min(LONGEST_RELEASE);
            }
            Look::Spins => {
                self.spun = self.spun.wrapping_add(1);
                self.release = (self.release - self.release / 8).max(SHORTEST_RELEASE);
            }
        }
    }

    /// After how long, ns, the first look is due at a vCPU that runs for itself, to find out whether it spins.
    #[must_use]
    pub fn until_wait(&self) -> u64 {
        self.wait
    }

    /// Whether the vCPU has spun lately, so that it is to be looked at even if no vCPU is known for which it may
    /// wait.
    #[must_use]
    pub fn is_alert(&self) -> bool {
        self.alert > 0
    }

    /// A turn of the vCPU's own ends. It spun at the end or did not, and was `looked_at` before the end or was
    /// not.
    pub fn turn_ended(&mut self, spun: bool, looked_at: bool) {
        if spun {
            (self.wait, self.alert) = (FIRST_WAIT, ALERT_TURNS);
            return;
        }
        self.alert = self.alert.saturating_sub(1);
        if looked_at {
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In each run a vCPU releases its lock after `free.start` and spins from `free.end` on. How many of 1,000
    /// first looks find it free?
    fn found_free(free: std::ops::Range<u64>) -> u32 {
        let mut pace = LookPace::default();
        let mut count = 0;
        for _ in 0..1_000 {
            let found = match pace.until_release(0) {
                ran if ran < free.start => Look::Holds,
                ran if ran < free.end => Look::Free,
                _ => Look::Spins,
            };
            pace.looked_for_release(found);
            count += u32::from(found == Look::Free);
        }
        count
    }

    #[test]
    fn looks_find_the_time_between_release_and_queue() {
        for free in [1_000..2_000, 2_000..4_000, 10_000..15_000, 30_000..50_000] {
            let count = found_free(free.clone());
            assert!(count > 200, "{count} for {free:?}");
        }
    }

    /// In each run a vCPU is found free from 20 to 24 us after the beginning of an entry that is estimated at 34 us,
    /// and spins before and after.
    #[test]
    fn looks_find_a_vcpu_free_whose_entry_takes_less_than_estimated() {
        let mut pace = LookPace::default();
        let mut count = 0;
        for _ in 0..1_000 {
            let found = match pace.until_release(34_000) {
                20_000..24_000 => Look::Free,
                _ => Look::Spins,
            };
            pace.looked_for_release(found);
            count += u32::from(found == Look::Free);
        }
        assert!(count > 200, "{count}");
    }

    #[test]
    fn looks_at_a_vcpu_that_only_spins_become_rare() {
        let mut pace = LookPace::default();
        let mut time = 0;
        for _ in 0..1_000 {
            time += pace.until_release(0);
            pace.looked_for_release(Look::Spins);
        }
        assert!(time > 1_000 * RARE_RELEASE / 6, "{time}");
    }

    #[test]
    fn a_vcpu_that_does_not_spin_is_looked_at_ever_later_until_it_does() {
        let mut pace = LookPace::default();
        let mut times = Vec::new();
        for _ in 0..6 {
            times.push(pace.until_wait());
            pace.turn_ended(false, true);
        }
        let expected = [1, 2, 4, 8, 16, 16].map(|times| times * FIRST_WAIT);
        assert_eq!(times, expected);
        pace.turn_ended(true, true);
        assert_eq!(pace.until_wait(), FIRST_WAIT);
        pace.turn_ended(false, false);
        assert_eq!(pace.until_wait(), FIRST_WAIT, "nobody looked");
    }

    #[test]
    fn a_vcpu_that_spun_is_looked_at_for_some_turns() {
        let mut pace = LookPace::default();
        assert!(!pace.is_alert());
        pace.turn_ended(true, false);
        for _ in 0..ALERT_TURNS {
            assert!(pace.is_alert());
            pace.turn_ended(false, true);
        }
        assert!(!pace.is_alert());
    }
}
