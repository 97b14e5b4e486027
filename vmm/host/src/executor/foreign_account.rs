//! The CPU time of a guest's process: what its vCPUs' threads have not used is that of its devices and of the
//! process itself, and is charged to the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_link::foreign_clock::ForeignThreadClock;
use baton_link::foreign_process::ForeignProcess;
use vcpu_sched::Ns;

/// The clocks are read no more often than this, ns.
const EVERY: Ns = 10_000_000;
/// CPU time without a command that is forgiven at once, ns. It is charged in any case.
const FORGIVEN: Ns = 50_000_000;
/// Time for which a thread may sleep in its runs at once without a charge, ns.
const FORGIVEN_SLEEP: Ns = 10_000_000;
/// Of the time that passes, one part in this number is forgiven, too.
const FORGIVEN_PART: Ns = 100;

/// The clock of a vCPU's thread, and what it showed last.
#[derive(Debug)]
struct ThreadTime {
    clock: Arc<ForeignThreadClock>,
    last: AtomicU64,
}

impl ThreadTime {
    /// The CPU time of the thread. A thread that has ended has what it had before.
    fn read(&self) -> Ns {
        let read = self.clock.ran_ns().unwrap_or(0);
        self.last.fetch_max(read, Ordering::Relaxed).max(read)
    }
}

/// The account of a guest's process beside its vCPUs' threads.
#[derive(Debug)]
pub(super) struct ProcessAccount {
    threads: Vec<ThreadTime>,
    /// When the clocks are read next, ns.
    next_at: AtomicU64,
    /// The most that the other threads had used when the clocks were read, ns.
    ///
    /// The time of a vCPU's thread that runs is up to a tick of the host old, so that the rest may seem larger
    /// than it is. The next reading is the smaller for it, and the largest one is what is charged in all. So the
    /// error does not add up.
    taken: AtomicU64,
}

impl ProcessAccount {
    /// The account of `process`, whose vCPUs' threads have these clocks. What it has used so far is not charged.
    pub(super) fn new(process: &ForeignProcess, clocks: &[Arc<ForeignThreadClock>]) -> Self {
        let thread = |clock: &Arc<ForeignThreadClock>| ThreadTime {
            clock: Arc::clone(clock),
            last: AtomicU64::new(0),
        };
        let account = Self {
            threads: clocks.iter().map(thread).collect(),
            next_at: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        };
        account.take(process.cpu_ns().unwrap_or(0));
        account
    }

    /// Takes the CPU time of the other threads of `process` since the last time, ns; 0 if that was a moment ago.
    pub(super) fn take_rest(&self, process: &ForeignProcess, now: Ns) -> Ns {
        let next_at = self.next_at.load(Ordering::Relaxed);
        let next = now.saturating_add(EVERY);
        let relaxed = Ordering::Relaxed;
        // Of several executors at once, one reads the clocks.
        if now < next_at
            || (self
                .next_at
                .compare_exchange(next_at, next, relaxed, relaxed))
            .is_err()
        {
            return 0;
        }
        process.cpu_ns().map_or(0, |all| self.take(all))
    }

    /// The same of a process that has used `all`, ns.
    fn take(&self, all: Ns) -> Ns {
        let of_vcpus: Ns = self.threads.iter().map(ThreadTime::read).sum();
        let rest = all.saturating_sub(of_vcpus);
        rest.saturating_sub(self.taken.fetch_max(rest, Ordering::Relaxed))
    }
}

/// CPU time that a vCPU's thread has used without a command, less what is forgiven.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uncommanded {
    used: Ns,
    at: Ns,
}

impl Uncommanded {
    /// Records that the thread has used `ns` more at the time `now`. Returns how much it was in all, if that is too
    /// much.
    pub(super) fn add(&mut self, ns: Ns, now: Ns) -> Option<Ns> {
        let since = now.saturating_sub(std::mem::replace(&mut self.at, now));
        self.used = self.used.saturating_sub(since / FORGIVEN_PART) + ns;
        (self.used > FORGIVEN).then_some(self.used)
    }
}

/// Time in which a vCPU's thread slept although it was to run. It kept the CPU from others, so it is charged as if the
/// thread had run, less what is forgiven: the host wakes no thread at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SleptInRuns {
    forgiven: Ns,
    at: Ns,
}

impl SleptInRuns {
    /// Records that the thread has slept for `ns` more up to the time `now`. Returns how much of that is charged.
    pub(super) fn charge(&mut self, ns: Ns, now: Ns) -> Ns {
        let since = now.saturating_sub(std::mem::replace(&mut self.at, now));
        self.forgiven = self.forgiven.saturating_sub(since / FORGIVEN_PART);
        let free = FORGIVEN_SLEEP.saturating_sub(self.forgiven).min(ns);
        self.forgiven += free;
        ns - free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_when_it_is_to_run_is_charged_but_for_a_hundredth_of_its_time() {
        const SECOND: Ns = 1_000_000_000;
        let mut slept = SleptInRuns::default();
        assert_eq!(slept.charge(FORGIVEN_SLEEP, SECOND), 0);
        assert_eq!(slept.charge(7, SECOND), 7);
        assert_eq!(slept.charge(SECOND, 2 * SECOND), SECOND - SECOND / 100);
        assert_eq!(slept.charge(Ns::MAX, 0), Ns::MAX, "the clock goes back");
    }

    #[test]
    fn a_thread_may_use_a_hundredth_of_its_time_and_a_little_at_once_without_a_command() {
        const SECOND: Ns = 1_000_000_000;
        let mut uncommanded = Uncommanded::default();
        for second in 1..100 {
            assert_eq!(uncommanded.add(SECOND / 100, second * SECOND), None);
        }
        assert_eq!(uncommanded.add(FORGIVEN - SECOND / 100, 99 * SECOND), None);
        assert!(uncommanded.add(1, 99 * SECOND).is_some());
    }

    #[test]
    fn the_largest_rest_is_what_is_taken_in_all() {
        let account = ProcessAccount {
            threads: Vec::new(),
            next_at: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        };
        let taken = [5, 9, 7, 9, 12].map(|all| account.take(all));
        assert_eq!(taken, [5, 4, 0, 0, 3]);
    }
}
