//! How fast guests are taken apart.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use baton_os::sys;

/// At most one part in so many of a host CPU is used to give a guest's memory back.
const PARTS: u64 = 100;
/// CPU time between two rests, ns. A thread cannot rest within a piece of work, and much shorter stretches
/// would cost more than the work.
const STRETCH_NS: u64 = 100_000;

/// How fast guests are taken apart: slowly, until the run ends.
#[derive(Debug, Default)]
pub struct Pace {
    is_hurried: Mutex<bool>,
    changed: Condvar,
}

impl Pace {
    /// Begins work of the calling thread, in which the thread rests.
    pub fn begin(&self) -> Paced<'_> {
        Paced {
            pace: self,
            rested_at: sys::thread_cpu_ns(),
        }
    }

    /// Ends all rests, and lets no thread rest from now on.
    pub(super) fn hurry(&self) {
        *self
            .is_hurried
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, time: Duration) {
        let is_hurried = self
            .is_hurried
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(is_hurried, time, |is_hurried| !*is_hurried)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Work in which its thread rests.
#[derive(Debug)]
pub struct Paced<'a> {
    pace: &'a Pace,
    /// CPU time of the thread at its last rest, ns.
    rested_at: u64,
}

impl Paced<'_> {
    /// Rests if it is time to. To be called between two pieces of work.
    pub fn rest_if_due(&mut self) {
        let used = sys::thread_cpu_ns().saturating_sub(self.rested_at);
        if let Some(rest) = rest_after(used) {
            self.pace.wait(rest);
            self.rested_at = sys::thread_cpu_ns();
        }
    }
}

/// How long to rest after `used` ns of CPU time since the last rest; `None`: not yet.
fn rest_after(used: u64) -> Option<Duration> {
    (used >= STRETCH_NS).then(|| Duration::from_nanos(used.saturating_mul(PARTS - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_memory_back_uses_a_hundredth_of_a_host_cpu() {
        assert_eq!(rest_after(STRETCH_NS - 1), None);
        assert_eq!(rest_after(1_000_000), Some(Duration::from_millis(99)));
    }

    #[test]
    fn at_the_end_of_the_run_no_thread_rests() {
        let pace = Pace::default();
        pace.hurry();
        // A rest would end in some 292 years.
        pace.wait(Duration::from_nanos(u64::MAX / 2));
    }
}
