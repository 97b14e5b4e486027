//! How long a guest that has ended waits before it starts again.

use std::time::Duration;

/// The shortest wait.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// A guest that has run for this long has started well.
const STARTED_WELL: Duration = Duration::from_secs(10);

/// The waits of one guest: each is twice as long as the one before, and after a good start they begin again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// The wait of a guest that ran for `ran` before it ended.
    pub(crate) fn wait_after(&mut self, ran: Duration) -> Duration {
        if ran >= STARTED_WELL {
            self.next = SHORTEST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_30_s_and_begin_again_after_10_s_of_running() {
        let mut backoff = Backoff::default();
        let mut after = |ran| backoff.wait_after(Duration::from_millis(ran)).as_millis();
        let waits: Vec<_> = (0..11).map(|_| after(9_999)).collect();
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(after(10_000), 100);
        assert_eq!(after(0), 200);
    }
}
