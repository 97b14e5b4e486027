//! Small edges to the host kernel that no crate wraps: clocks, affinity, thread accounting.

use std::io;
use std::mem;

mod affinity;

pub use affinity::{affinity, affinity_of, set_affinity, set_affinity_of};

/// The host's time stamp counter.
#[must_use]
pub fn rdtsc() -> u64 {
    // SAFETY: reads a counter; present on every x86-64 processor.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_MONOTONIC` as of the last tick of the host's, nanoseconds: some milliseconds late, and read in
/// next to no time.
#[must_use]
pub fn coarse_monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// CPU time of the calling thread, nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; these clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

/// Kernel id of the calling thread.
#[must_use]
pub fn thread_id() -> libc::pid_t {
    // SAFETY: no arguments, no effects.
    unsafe { libc::gettid() }
}

/// The host CPU that the calling thread is on at the moment, if the kernel tells.
#[must_use]
pub fn current_cpu() -> Option<usize> {
    // SAFETY: no arguments, no effects.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// CPU time of all threads of this process, nanoseconds.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Makes timed sleeps of the calling thread as exact as the kernel can: no slack.
pub fn set_exact_timers() {
    // SAFETY: no memory is involved; a kernel that refuses leaves the default slack of 50 us.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// Major and minor number of the running kernel, if it tells.
#[must_use]
pub fn kernel_version() -> Option<(u32, u32)> {
    parse_version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

/// Major and minor number of a release such as `6.12.1-debian`.
pub fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Time on and off the CPU of a thread, from its `schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// On a CPU, nanoseconds.
    pub ran_ns: u64,
    /// Runnable and waiting for a CPU, nanoseconds.
    pub waited_ns: u64,
    /// Times put on a CPU.
    pub switches: u64,
}

/// What the host kernel has accounted for the calling thread; zeros where it does not tell.
#[must_use]
pub fn thread_schedstat() -> SchedStat {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .map(|text| parse_schedstat(&text))
        .unwrap_or_default()
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

/// `sched_setattr` for `SCHED_DEADLINE`; all in nanoseconds.
///
/// # Errors
/// `EPERM` without privilege or with an affinity narrower than the root domain, `EBUSY` when the
/// kernel's admission test fails, `EINVAL` below its limits.
pub fn set_deadline_policy(runtime: u64, deadline: u64, period: u64) -> io::Result<()> {
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // A deadline thread may only have children if they do not inherit its policy, and KVM makes one
    // (its huge-page recovery task) at a guest's first KVM_RUN; without this, that fails with
    // EAGAIN for ever.
    const RESET_ON_FORK: u64 = 1;
    let attr = SchedAttr {
        size: mem::size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_DEADLINE as u32,
        flags: RESET_ON_FORK,
        nice: 0,
        priority: 0,
        runtime,
        deadline,
        period,
    };
    // SAFETY: the structure is the kernel's first version of sched_attr and says its size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
    fn kernel_versions_are_compared_by_number() {
        assert_eq!(parse_version("6.13.0-rc1+deb13"), Some((6, 13)));
        assert!(parse_version("6.9.12") < Some((6, 13)));
        assert_eq!(parse_version("unknown"), None);
    }
}
