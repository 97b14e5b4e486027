//! How long it takes to come out of the guest: from the moment when the policy wants the CPU back
//! until the executor knows of it, a timer's signal and an exit.
//!
//! A grace is meant for the guest, but the executor can only count from the exit on which it grants
//! one; the way back in is lost. That way is not seen, the way out is, and the two are alike. Where exits
//! are cheap it is nothing; on a host that is itself a guest 150 us were seen, three times the grace.

use vcpu_sched::Ns;

/// How far one measurement moves the estimate, ns.
const STEP_NS: Ns = 1_000;
/// No way out is longer than this, ns; what takes longer is a host that took the CPU away.
const LONGEST_NS: Ns = 200_000;

/// A running median of the ways out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crossing {
    estimate: Option<Ns>,
}

impl Crossing {
    /// The CPU was wanted back at `until`, and it was noticed `now`.
    pub(super) fn came_out(&mut self, until: Ns, now: Ns) {
        let Some(took) = now.checked_sub(until) else {
            // A kick came first.
            return;
        };
        let took = took.min(LONGEST_NS);
        self.estimate = Some(match self.estimate {
            None => took,
            Some(before) if took > before => before + STEP_NS.min(took - before),
            Some(before) => before - STEP_NS.min(before - took),
        });
    }

    /// How long the ways are, ns, before a vCPU can release the lock for which it has a grace: its own
    /// way in, and if it `waits`, that of the holder, which may just be on its way out for its own
    /// grace. 0 until a way has been seen.
    pub(super) fn before_release(self, waits: bool) -> Ns {
        let ways = if waits { 3 } else { 1 };
        ways * self.estimate.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_goes_to_the_median_whatever_the_outliers() {
        let mut crossing = Crossing::default();
        assert_eq!(crossing.before_release(true), 0);
        for round in 0..400 {
            let took = if round % 4 == 3 { 9_000_000 } else { 20_000 };
            crossing.came_out(1_000, 1_000 + took);
        }
        let way = crossing.before_release(false);
        assert!((20_000..25_000).contains(&way), "{crossing:?}");
        assert_eq!(crossing.before_release(true), 3 * way);
    }

    #[test]
    fn the_first_way_counts_at_once_but_no_more_than_the_longest() {
        let mut crossing = Crossing::default();
        crossing.came_out(0, 70_000);
        assert_eq!(crossing.before_release(false), 70_000);
        let mut crossing = Crossing::default();
        crossing.came_out(0, 70_000_000);
        assert_eq!(crossing.before_release(false), LONGEST_NS);
    }

    #[test]
    fn a_kick_before_the_time_tells_nothing() {
        let mut crossing = Crossing::default();
        crossing.came_out(100, 50);
        assert_eq!(crossing.before_release(false), 0);
    }
}
