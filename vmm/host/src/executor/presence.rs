//! Measures whether the host let a thread run while the thread was in the guest.
//!
//! A thread that is stopped with the process (SIGSTOP, a debugger), or that the host puts behind others
//! for long, comes out of `KVM_RUN` by a signal: that of the stop, or that of its own context switch. The
//! thread has missed the time that passed, less the CPU time that it used.

use baton_machine::guest_stopped::is_long;
use baton_os::sys;

/// The thread's CPU time is read again if it was read longer ago than this, ns, because reading takes two
/// microseconds and each run of a vCPU would begin with that. So a gap that is found may be this much too
/// long, and many short gaps do not add up to a long one.
const OLD_NS: u64 = 100_000_000;

/// The times of the calling thread, ns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Presence {
    /// The moment at which `cpu` was read.
    read: u64,
    /// CPU time of the thread.
    cpu: u64,
    /// The moment at which the thread last went into the guest.
    since: u64,
}

impl Presence {
    /// The thread goes into the guest at `now`, ns.
    pub(crate) fn begin(&mut self, now: u64) {
        if now.saturating_sub(self.read) >= OLD_NS {
            self.update(now, sys::thread_cpu_ns());
        }
        self.since = now;
    }

    /// A signal has brought the thread out of the guest at `now`. Returns how long the host has kept it from
    /// running there, ns; `None` if that was not [long](is_long).
    pub(crate) fn missed(&mut self, now: u64) -> Option<u64> {
        if now.saturating_sub(self.read) < OLD_NS {
            return None;
        }
        let missed = self.update(now, sys::thread_cpu_ns());
        // Before it went into the guest it may have slept.
        let here = now.saturating_sub(self.since);
        Some(missed.min(here)).filter(|&missed| is_long(missed))
    }

    /// The part of the time since the last update in which the thread did not run.
    fn update(&mut self, now: u64, cpu: u64) -> u64 {
        let passed = now.saturating_sub(std::mem::replace(&mut self.read, now));
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        passed.saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_a_thread_missed_is_the_time_less_its_cpu_time() {
        let mut presence = Presence::default();
        presence.update(100 * SECOND, 7 * SECOND);
        assert_eq!(presence.update(110 * SECOND, 11 * SECOND), 6 * SECOND);
        assert_eq!(presence.update(115 * SECOND, 16 * SECOND), 0);
    }

    #[test]
    fn sleep_before_a_run_is_not_missed_in_it() {
        // This thread's CPU time is next to nothing beside the times here.
        let mut presence = Presence::default();
        presence.begin(100 * SECOND);
        presence.begin(1_000 * SECOND);
        assert_eq!(presence.missed(1_000 * SECOND + SECOND / 2), None);
        let missed = presence.missed(1_005 * SECOND).expect("a gap");
        assert!(missed > 4 * SECOND && missed < 5 * SECOND, "{missed}");
    }

    #[test]
    fn short_gaps_do_not_add_up_to_a_long_one() {
        let mut presence = Presence::default();
        for tenths in 1..1_000 {
            presence.begin(100 * SECOND + (tenths - 1) * SECOND / 10);
            assert_eq!(presence.missed(100 * SECOND + tenths * SECOND / 10), None);
        }
    }
}
