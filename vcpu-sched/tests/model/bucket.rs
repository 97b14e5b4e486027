//! How much a hard reservation may have been charged: a bucket from which budget flows out at the reserved rate.
//!
//! A budget `Q` in each period `P` can be used at the end of one period and at the beginning of the next, and then
//! once in each. So in any time `t`, at most `2 Q (1 - Q / P) + t Q / P` is used (the arrival curve of a constant
//! bandwidth server). A bucket that is filled by what is charged, and out of which `Q / P` flows, never holds more
//! than `2 Q (1 - Q / P)` then. What is charged beyond a budget is debt: no vCPU is picked whose bucket has no room
//! for the budget that it has.

use vcpu_sched::{Exhaustion, Ns, Reservation, SchedParams};

use crate::pool::Pool;

/// The bucket of one vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// What is in it, ns times the period.
    level: u128,
    updated: Ns,
    budget: u128,
    period: u128,
    /// How much it holds, ns times the period.
    size: u128,
}

impl Bucket {
    /// The bucket of a vCPU with hard reservations; `None` for others. Where reservations change, it has room for
    /// the largest of each.
    pub fn new(pool: &Pool, params: &SchedParams) -> Option<Self> {
        let SchedParams::Reserved(own) = *params else {
            return None;
        };
        let others = pool.events.reservations;
        let all = || others.iter().chain([&own]);
        let is_soft = |r: &Reservation| r.exhaustion() == Exhaustion::Soft;
        if all().any(is_soft) || (pool.events.weights && !others.is_empty()) {
            return None;
        }
        let share = |r: &&Reservation| (u128::from(r.budget()) << 64) / u128::from(r.period());
        let fastest = all().max_by_key(share)?;
        let (budget, period) = (fastest.budget().into(), fastest.period().into());
        let largest = u128::from(all().map(Reservation::budget).max()?);
        let size = match (others.is_empty(), pool.keeps_deadlines()) {
            (true, true) => 2 * largest * (period - budget),
            // A budget that came late is used late, just before the next two.
            (true, false) => 3 * largest * (period - budget),
            (false, _) => 3 * largest * period,
        };
        Some(Self {
            level: 0,
            updated: 0,
            budget,
            period,
            size,
        })
    }

    /// Charges `used` ns, up to `now`.
    pub fn pour(&mut self, used: Ns, now: Ns) {
        let out = u128::from(now - self.updated) * self.budget;
        self.level = (self.level + u128::from(used) * self.period).saturating_sub(out);
        self.updated = now;
    }

    /// Charges what another thread has used, ns, at any moment.
    pub fn add(&mut self, used: Ns) {
        self.level += u128::from(used) * self.period;
    }

    /// Whether it holds what comes in if `budget` is used from now on.
    pub fn has_room_for(&self, budget: Ns) -> bool {
        let rise = u128::from(budget) * (self.period - self.budget);
        self.level + rise <= self.size
    }

    /// What is in it at `now`, in units of its own.
    pub fn level(&self, now: Ns) -> u64 {
        let mut later = *self;
        later.pour(0, now);
        later.level as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Events, UNIT, hard};

    #[test]
    fn two_budgets_in_a_row_fit_and_a_third_does_not() {
        let pool = Pool {
            name: "",
            cpus: 1,
            guests: &[],
            events: Events::NONE,
        };
        let params = SchedParams::Reserved(hard(2, 6));
        let mut bucket = Bucket::new(&pool, &params).unwrap();
        for end in [2, 4] {
            assert!(bucket.has_room_for(2 * UNIT));
            bucket.pour(2 * UNIT, end * UNIT);
        }
        assert!(!bucket.has_room_for(2 * UNIT));
        bucket.pour(0, 8 * UNIT);
        assert!(
            bucket.has_room_for(2 * UNIT),
            "the third, in its own period"
        );
    }
}
