//! The calling thread: its id, its host CPU, its timers, and what the kernel has accounted for it.

use std::mem;
use std::num::NonZeroU64;
use std::path::PathBuf;

/// Kernel id of the calling thread.
#[must_use]
pub fn thread_id() -> libc::pid_t {
    rustix::thread::gettid().as_raw_pid()
}

/// The host CPU that the calling thread is on at the moment.
#[must_use]
pub fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}

/// Makes timed sleeps of the calling thread as exact as the kernel can: no slack.
pub fn set_exact_timers() {
    // A kernel that refuses leaves the default slack of 50 us.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// How often the calling thread went off its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextSwitches {
    /// The thread went to sleep, or was stopped.
    pub voluntary: u64,
    /// The host preempted the thread.
    pub involuntary: u64,
}

/// Context switches of the calling thread so far. Needs no permission; costs about 0.4 us.
#[must_use]
pub fn context_switches() -> ContextSwitches {
    // SAFETY: plain integers; getrusage fills them and cannot fail for the calling thread.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    ContextSwitches {
        voluntary: usage.ru_nvcsw as u64,
        involuntary: usage.ru_nivcsw as u64,
    }
}

/// Time on and off the CPU of a thread, from its `schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// On a CPU, nanoseconds.
    pub ran_ns: u64,
    /// Runnable and waiting for a CPU, nanoseconds.
    pub waited_ns: u64,
    /// How often the thread was put on a CPU.
    pub switches: u64,
}

/// What the host kernel has accounted for the calling thread; zeros where the kernel keeps no account.
#[must_use]
pub fn thread_schedstat() -> SchedStat {
    std::fs::read_to_string(schedstat_path())
        .map(|text| parse_schedstat(&text))
        .unwrap_or_default()
}

/// The file with what the host kernel has accounted for the calling thread. A sandbox has no `/proc/thread-self`.
#[must_use]
pub fn schedstat_path() -> PathBuf {
    let thread = rustix::thread::gettid().as_raw_nonzero();
    format!("/proc/self/task/{thread}/schedstat").into()
}

fn parse_schedstat(text: &str) -> SchedStat {
    let mut numbers = text
        .split_ascii_whitespace()
        .map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    SchedStat {
        ran_ns: next(),
        waited_ns: next(),
        switches: next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_lines_are_three_numbers() {
        assert_eq!(
            parse_schedstat("12 34 5\n"),
            SchedStat {
                ran_ns: 12,
                waited_ns: 34,
                switches: 5
            }
        );
        assert_eq!(parse_schedstat(""), SchedStat::default());
    }

    #[test]
    fn a_sleep_is_a_voluntary_switch() {
        let before = context_switches();
        std::thread::sleep(std::time::Duration::from_micros(200));
        assert!(context_switches().voluntary > before.voluntary);
    }
}
