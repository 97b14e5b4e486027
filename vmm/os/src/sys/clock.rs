//! The host's clocks in nanoseconds, and its time stamp counter.

use rustix::time::{ClockId, clock_gettime};

/// The host's time stamp counter.
#[must_use]
pub fn rdtsc() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// `CLOCK_MONOTONIC` as of the host's last tick, nanoseconds. It is a few milliseconds behind and costs next
/// to nothing to read.
#[must_use]
pub fn coarse_monotonic_ns() -> u64 {
    clock_ns(ClockId::MonotonicCoarse)
}

/// `CLOCK_BOOTTIME`, which the host kernel's own traces use, nanoseconds.
#[must_use]
pub fn boottime_ns() -> u64 {
    clock_ns(ClockId::Boottime)
}

/// CPU time of the calling thread, nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process, guests included, nanoseconds.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    clock_ns(ClockId::ProcessCPUTime)
}

/// CPU time of all processes that this one has started and waited for, and of theirs, nanoseconds. The kernel counts in
/// microseconds.
#[must_use]
pub fn children_cpu_ns() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place is writable; the kernel fills it in.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: integers only, zeroed before the kernel filled it.
    let usage = unsafe { usage.assume_init() };
    [usage.ru_utime, usage.ru_stime]
        .into_iter()
        .map(|time| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000)
        .sum()
}

/// Length of the ticks in which `/proc/stat` counts, nanoseconds.
#[must_use]
pub fn accounting_tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_time_is_never_ahead_of_the_exact_one() {
        let coarse = coarse_monotonic_ns();
        assert!(coarse > 0 && coarse <= monotonic_ns());
    }

    #[test]
    fn the_cpu_time_of_a_thread_is_part_of_its_process() {
        let thread = thread_cpu_ns();
        assert!(thread > 0 && thread <= process_cpu_ns());
    }
}
