//! How much a guest's wake-ups may disturb others.

use crate::ids::Ns;

/// Thousandths of one host CPU's time that the wake-ups of all guests may take from more urgent claims.
/// The exit that each causes on the CPU of such a claim is of the same order, and comes on top.
pub(crate) const SHARE_PERMILLE: u64 = 3;
/// Credit of a guest that has disturbed nobody for long, ns: a wake-up of each of some vCPUs at once.
const MOST_CREDIT: i64 = 500_000;
/// What a guest's wake-ups may take from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    pub(crate) left: i64,
    /// When `left` was right, ns.
    at: Ns,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            left: MOST_CREDIT,
            at: 0,
        }
    }
}

impl Credit {
    /// Lets time pass, where `guests` share the pool's.
    pub(crate) fn pass(&mut self, now: Ns, guests: u64) {
        let time = now.saturating_sub(self.at);
        let more = time.saturating_mul(SHARE_PERMILLE) / (1000 * guests);
        if more > 0 {
            // What is too short to count yet counts the next time.
            self.at = self
                .at
                .saturating_add(more * 1000 * guests / SHARE_PERMILLE);
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(more).min(MOST_CREDIT);
        }
    }

    pub(crate) fn spend(&mut self, spent: Ns) {
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(spent);
    }

    /// How long until there is some, ns.
    pub(crate) fn missing(&self, guests: u64) -> Ns {
        let deficit = self.left.min(0).unsigned_abs();
        deficit.saturating_mul(1000 * guests) / SHARE_PERMILLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_with_time_and_is_not_saved_up_beyond_the_most() {
        let mut credit = Credit::default();
        credit.spend(1_500_000);
        assert_eq!(credit.missing(2), 1_000_000 * 2000 / 3);
        credit.pass(300_000_000, 2);
        assert_eq!(credit.left, -1_000_000 + 450_000);
        credit.pass(100_000_000_000, 2);
        assert_eq!(credit.left, MOST_CREDIT);
    }

    #[test]
    fn short_times_add_up() {
        let mut credit = Credit::default();
        credit.spend(MOST_CREDIT.unsigned_abs());
        (1..=1000).for_each(|n| credit.pass(n * 100, 1));
        assert!((299..=301).contains(&credit.left), "{credit:?}");
    }
}
