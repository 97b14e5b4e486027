//! Whether all parts of a pool still work, for the watchdog of systemd.
//!
//! A check kicks all executors, and the next one finds out whether each has had the policy decide since. The thread
//! of the API is asked in the same way. So a pool that hangs anywhere is restarted.

use baton_host::executor::PoolReader;
use vcpu_sched::CpuId;

/// What the last check found.
#[derive(Debug, Default)]
pub struct Watchdog {
    decisions: Vec<(CpuId, u64)>,
}

impl Watchdog {
    /// Whether each executor has had the policy decide since the last call. True for the first.
    pub fn executors_work(&mut self, reader: &PoolReader) -> bool {
        let work = self.compare(reader.decisions());
        reader.kick_all();
        work
    }

    fn compare(&mut self, now: Vec<(CpuId, u64)>) -> bool {
        let before = std::mem::replace(&mut self.decisions, now);
        // An executor whose host CPU the pool has given up has nothing to do, and one that has started since has begun
        // anew.
        let stands = |&(cpu, count): &(CpuId, u64)| before.contains(&(cpu, count));
        !self.decisions.iter().any(stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_executor_that_has_not_decided_is_enough_for_no() {
        let counts = |counts: &[u64]| (0..).map(CpuId).zip(counts.iter().copied()).collect();
        let mut watchdog = Watchdog::default();
        assert!(watchdog.compare(counts(&[0, 0])), "nothing is known yet");
        assert!(watchdog.compare(counts(&[1, 5])));
        assert!(!watchdog.compare(counts(&[1, 6])));
        assert!(watchdog.compare(counts(&[2, 7])));
    }

    #[test]
    fn an_executor_that_has_ended_or_begun_anew_has_not_hung() {
        let mut watchdog = Watchdog::default();
        assert!(watchdog.compare(vec![(CpuId(0), 9), (CpuId(1), 9)]));
        assert!(watchdog.compare(vec![(CpuId(1), 10)]));
        assert!(watchdog.compare(vec![(CpuId(0), 2), (CpuId(1), 11)]));
        assert!(!watchdog.compare(vec![(CpuId(0), 2), (CpuId(1), 12)]));
    }
}
