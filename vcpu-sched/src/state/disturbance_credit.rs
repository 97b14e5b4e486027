//! How much a guest's wake-ups may disturb other guests: a token bucket of CPU time.

use crate::ids::Ns;
use crate::normal_form::Writer;

/// Thousandths of one host CPU's time that the wake-ups of all guests may take from more urgent vCPUs.
/// The exit that each wake-up causes on the CPU of such a vCPU is of the same order, and comes on top.
const SHARE_PERMILLE: u64 = 3;
/// Credit of a guest that has not disturbed others for long, ns: one wake-up of each of several vCPUs at
/// once.
const MOST_CREDIT: i64 = 500_000;

/// What a guest's wake-ups may take from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DisturbanceCredit {
    left: i64,
    /// The time up to which `left` has been refilled, ns.
    refilled_at: Ns,
}

impl Default for DisturbanceCredit {
    fn default() -> Self {
        Self {
            left: MOST_CREDIT,
            refilled_at: 0,
        }
    }
}

impl DisturbanceCredit {
    /// Refills the bucket up to `now`. All `guests` of the pool share the inflow.
    pub(crate) fn refill(&mut self, now: Ns, guests: u64) {
        let time = now.saturating_sub(self.refilled_at);
        let more = time.saturating_mul(SHARE_PERMILLE) / (1000 * guests);
        if more > 0 {
            // Time that is too short for one nanosecond of credit counts the next time.
            self.refilled_at = self
                .refilled_at
                .saturating_add(more * 1000 * guests / SHARE_PERMILLE);
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(more).min(MOST_CREDIT);
        }
    }

    pub(crate) fn spend(&mut self, spent: Ns) {
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(spent);
    }

    /// Whether any credit is left.
    pub(crate) const fn any_left(&self) -> bool {
        self.left > 0
    }

    /// How long it takes until the debt is refilled, ns.
    pub(crate) fn time_to_refill(&self, guests: u64) -> Ns {
        let deficit = self.left.min(0).unsigned_abs();
        deficit.saturating_mul(1000 * guests) / SHARE_PERMILLE
    }
}

impl DisturbanceCredit {
    /// Writes its normal form in a pool of so many guests. What has flown in counts to the whole nanosecond.
    pub(crate) fn normalise(mut self, guests: u64, to: &mut Writer) {
        self.refill(to.now(), guests);
        let Self {
            left,
            refilled_at: _,
        } = self;
        to.signed(i128::from(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_with_time_and_is_not_saved_up_beyond_the_most() {
        let mut credit = DisturbanceCredit::default();
        credit.spend(1_500_000);
        assert_eq!(credit.time_to_refill(2), 1_000_000 * 2000 / 3);
        credit.refill(300_000_000, 2);
        assert_eq!(credit.left, -1_000_000 + 450_000);
        credit.refill(100_000_000_000, 2);
        assert_eq!(credit.left, MOST_CREDIT);
    }

    #[test]
    fn short_times_add_up() {
        let mut credit = DisturbanceCredit::default();
        credit.spend(MOST_CREDIT.unsigned_abs());
        (1..=1000).for_each(|n| credit.refill(n * 100, 1));
        assert!((299..=301).contains(&credit.left), "{credit:?}");
    }
}
