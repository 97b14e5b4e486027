//! Whether what has been found is a preempt count, by its values.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::linux::PreemptCount;

/// So many values that a count cannot have show that it is none. A few may come from a place that the guest has
/// left, before the new one is found.
const WRONG_VALUES: u32 = 16;
/// So many values in a row that are not 0, of vCPUs that neither waited nor halted between two of them. Where a
/// lock is contended, all that is seen for long may be waiters. A halted vCPU may run the idle task, in which the
/// count is 1 for ever.
const NEVER_ZERO: u32 = 4096;
/// So many values of vCPUs in the kernel that are 0, and no other before. Interrupts alone are counted in one of
/// some hundred.
const ALWAYS_ZERO: u32 = 16384;

/// Why something is no preempt count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implausible {
    /// It had values that are no counts, or a value other than 0 in user mode.
    Values,
    /// It has not been 0 for a long time.
    NeverZero,
    /// It has always been 0.
    AlwaysZero,
}

impl fmt::Display for Implausible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Values => "has values that no preempt count has",
            Self::NeverZero => "never returns to 0",
            Self::AlwaysZero => "never leaves 0",
        })
    }
}

/// Where a vCPU was when its count was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circumstances {
    pub(super) is_user_mode: bool,
    /// Whether it was in a loop that waits.
    pub(super) waits: bool,
    /// Whether it has halted since its count was read last.
    pub(super) has_halted: bool,
}

/// The values that have been read of all vCPUs' counts. It does not matter if two vCPUs that record at the same
/// time lose a value.
#[derive(Debug, Default)]
pub(super) struct Plausibility {
    wrong_values: AtomicU32,
    not_zero_in_a_row: AtomicU32,
    zeros: AtomicU32,
    was_not_zero: AtomicBool,
}

impl Plausibility {
    /// Whether all values so far were 0. Only then the circumstances of another 0 matter.
    pub(super) fn awaits_first_count(&self) -> bool {
        !self.was_not_zero.load(Ordering::Relaxed)
    }

    /// A count was `word`. Returns why that shows that it is no count, if it does.
    pub(super) fn record(&self, word: PreemptCount, seen: Circumstances) -> Option<Implausible> {
        if word.is_zero() {
            return self.record_zero(seen);
        }
        if seen.is_user_mode || !word.is_plausible() {
            return reaches(&self.wrong_values, WRONG_VALUES).then_some(Implausible::Values);
        }
        self.was_not_zero.store(true, Ordering::Relaxed);
        if seen.waits || seen.has_halted {
            return None;
        }
        reaches(&self.not_zero_in_a_row, NEVER_ZERO).then_some(Implausible::NeverZero)
    }

    /// A count was 0.
    fn record_zero(&self, seen: Circumstances) -> Option<Implausible> {
        if self.not_zero_in_a_row.load(Ordering::Relaxed) > 0 {
            self.not_zero_in_a_row.store(0, Ordering::Relaxed);
        }
        if seen.is_user_mode || !self.awaits_first_count() {
            return None;
        }
        reaches(&self.zeros, ALWAYS_ZERO).then_some(Implausible::AlwaysZero)
    }
}

/// Counts one more, and returns whether that makes `limit`.
fn reaches(counter: &AtomicU32, limit: u32) -> bool {
    let count = counter.load(Ordering::Relaxed).saturating_add(1);
    counter.store(count, Ordering::Relaxed);
    count >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Circumstances = Circumstances {
        is_user_mode: false,
        waits: false,
        has_halted: false,
    };
    const USER: Circumstances = Circumstances {
        is_user_mode: true,
        ..KERNEL
    };
    const HALTED: Circumstances = Circumstances {
        has_halted: true,
        ..KERNEL
    };
    const WAITS: Circumstances = Circumstances {
        waits: true,
        ..KERNEL
    };
    const ZERO: PreemptCount = PreemptCount(0);
    const ONE: PreemptCount = PreemptCount(1);

    /// The verdict, and after how many values it came.
    fn verdict(
        most: u32,
        mut record: impl FnMut(&Plausibility, u32) -> Option<Implausible>,
    ) -> Option<(u32, Implausible)> {
        let values = Plausibility::default();
        (0..most).find_map(|nth| Some((nth + 1, record(&values, nth)?)))
    }

    #[test]
    fn values_that_no_count_has_are_recognised_after_a_few() {
        let wild = verdict(100, |values, _| values.record(PreemptCount(0x41), KERNEL));
        assert_eq!(wild, Some((WRONG_VALUES, Implausible::Values)));
        let in_user_mode = verdict(100, |values, _| values.record(ONE, USER));
        assert_eq!(in_user_mode, Some((WRONG_VALUES, Implausible::Values)));
    }

    #[test]
    fn a_count_that_never_returns_to_zero_is_recognised() {
        let stuck = verdict(10_000, |values, _| values.record(ONE, KERNEL));
        assert_eq!(stuck, Some((NEVER_ZERO, Implausible::NeverZero)));
        let rarely_free = verdict(100_000, |values, nth| match nth % 4000 {
            3999 => values.record(ZERO, USER),
            _ => values.record(ONE, KERNEL),
        });
        assert_eq!(rarely_free, None);
    }

    #[test]
    fn an_idle_guest_and_a_contended_lock_are_no_reason_to_doubt() {
        let idle = verdict(100_000, |values, _| values.record(ONE, HALTED));
        assert_eq!(idle, None);
        let contended = verdict(100_000, |values, _| values.record(ONE, WAITS));
        assert_eq!(contended, None);
    }

    #[test]
    fn a_count_that_never_leaves_zero_is_recognised_and_user_mode_does_not_count() {
        let stuck = verdict(100_000, |values, _| values.record(ZERO, KERNEL));
        assert_eq!(stuck, Some((ALWAYS_ZERO, Implausible::AlwaysZero)));
        let in_user_mode = verdict(100_000, |values, _| values.record(ZERO, USER));
        assert_eq!(in_user_mode, None);
        let once = verdict(100_000, |values, nth| match nth {
            0 => values.record(ONE, KERNEL),
            _ => values.record(ZERO, KERNEL),
        });
        assert_eq!(once, None);
    }
}
