//! Whether all parts of a pool still work, for the watchdog of systemd.
//!
//! A check kicks all executors, and the next one finds out whether each has had the policy decide since. The thread
//! of the API is asked in the same way. So a pool that hangs anywhere is restarted.

use baton_host::executor::PoolReader;

/// What the last check found.
#[derive(Debug, Default)]
pub struct Watchdog {
    decisions: Vec<u64>,
}

impl Watchdog {
    /// Whether each executor has had the policy decide since the last call. True for the first.
    pub fn executors_work(&mut self, reader: &PoolReader) -> bool {
        let work = self.compare(reader.decisions());
        reader.kick_all();
        work
    }

    fn compare(&mut self, now: Vec<u64>) -> bool {
        let before = std::mem::replace(&mut self.decisions, now);
        let mut both = before.iter().zip(&self.decisions);
        both.all(|(before, now)| now > before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_executor_that_has_not_decided_is_enough_for_no() {
        let mut watchdog = Watchdog::default();
        assert!(watchdog.compare(vec![0, 0]), "nothing is known yet");
        assert!(watchdog.compare(vec![1, 5]));
        assert!(!watchdog.compare(vec![1, 6]));
        assert!(watchdog.compare(vec![2, 7]));
    }
}
