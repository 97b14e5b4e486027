//! Estimates the exit latency: from the moment when a decision of the policy ends until the executor is back
//! from the guest, by a timer's signal and an exit. It serves as an estimate of the entry latency, too.
//!
//! The time of a deferral is meant for the guest, but the executor can only count it from the exit on which
//! the policy grants it, so that the entry is lost. The entry cannot be measured, the exit can, and the two
//! are alike. Where exits are cheap both are next to nothing. On a host that is itself a guest 150 us were
//! measured, three times a deferral.

use vcpu_sched::Ns;

/// How far one measurement moves the estimate, ns.
const STEP_NS: Ns = 1_000;
/// The shortest of so many measurements is the first estimate, because the first ones are often far too long.
const FIRST: u32 = 8;
/// An exit takes no longer than this, ns; in a longer time the host took the CPU away.
const LONGEST_NS: Ns = 200_000;

/// A running median of exit latencies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExitLatency {
    estimate: Option<Ns>,
    /// Measurements so far, up to [`FIRST`].
    first: u32,
}

impl ExitLatency {
    /// A decision ended or a look was due at `until`, and the executor was back from the guest at `now`.
    pub(super) fn measured(&mut self, until: Ns, now: Ns) {
        let Some(took) = now.checked_sub(until) else {
            // A kick came first.
            return;
        };
        let took = took.min(LONGEST_NS);
        self.first = (self.first + 1).min(FIRST);
        self.estimate = Some(match self.estimate {
            None => took,
            Some(before) if self.first < FIRST => before.min(took),
            Some(before) if took > before => before + STEP_NS.min(took - before),
            Some(before) => before - STEP_NS.min(before - took),
        });
    }

    /// The time, ns, that entries and exits take before a vCPU can release the lock for which it has a
    /// deferral: its own entry, and if it `waits`, an exit and an entry of the holder, which may just be
    /// about to get its own deferral. 0 before the first measurement.
    pub(super) fn before_release(self, waits: bool) -> Ns {
        let entries_and_exits = if waits { 3 } else { 1 };
        entries_and_exits * self.estimate.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_goes_to_the_median_whatever_the_outliers() {
        let mut latency = ExitLatency::default();
        assert_eq!(latency.before_release(true), 0);
        for round in 0..400 {
            let took = if round % 4 == 3 { 9_000_000 } else { 20_000 };
            latency.measured(1_000, 1_000 + took);
        }
        let once = latency.before_release(false);
        assert!((20_000..25_000).contains(&once), "{latency:?}");
        assert_eq!(latency.before_release(true), 3 * once);
    }

    #[test]
    fn the_first_measurement_counts_at_once_but_no_more_than_the_longest() {
        let mut latency = ExitLatency::default();
        latency.measured(0, 70_000);
        assert_eq!(latency.before_release(false), 70_000);
        let mut latency = ExitLatency::default();
        latency.measured(0, 70_000_000);
        assert_eq!(latency.before_release(false), LONGEST_NS);
    }

    #[test]
    fn a_first_measurement_that_was_far_too_long_is_soon_forgotten() {
        let mut latency = ExitLatency::default();
        latency.measured(0, 200_000);
        latency.measured(0, 20_000);
        assert_eq!(latency.before_release(false), 20_000);
    }

    #[test]
    fn a_kick_before_the_time_is_no_measurement() {
        let mut latency = ExitLatency::default();
        latency.measured(100, 50);
        assert_eq!(latency.before_release(false), 0);
    }
}
