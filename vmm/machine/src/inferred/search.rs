//! When a guest's kernel is scanned.
//!
//! A guest that runs programs has a kernel, and has had the time to register hint pages; so the first scan comes
//! when a vCPU is seen in user mode, or after a while, also at a halt: while vCPUs are idle, the scan has a CPU to
//! run on. Each further scan has to wait twice as long as the last, and there are not many in all, so that a guest
//! that hides its count or changes its text costs the host next to nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;
/// The first scan comes so long after the first stop of a vCPU, ns, if none has been in user mode before.
const FIRST_NS: u64 = 2 * SECOND_NS;
/// Longest time from one scan to the next, ns.
const MAX_INTERVAL_NS: u64 = 64 * SECOND_NS;
/// So many scans in a row may find nothing. Then only another kernel is scanned: one with another entry for
/// system calls.
const MAX_FAILURES: u32 = 4;
/// So many scans are made of one guest.
const MAX_SCANS: u32 = 32;

/// How far the search for the count of a guest's kernel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No search is made.
    NoSearch,
    /// Scans are still to be made.
    Looking,
    /// The count was found.
    Found,
    /// None was found, or it was none.
    NotFound,
}

/// The scans of one guest. It does not matter if two vCPUs that stop at the same time lose a record.
#[derive(Debug, Default)]
pub(super) struct Search {
    is_scanning: AtomicBool,
    scans: AtomicU32,
    /// Scans in a row that have found nothing.
    failures: AtomicU32,
    /// The first scan need not wait for user mode from this time on, ns; 0: no vCPU has stopped so far.
    first_at: AtomicU64,
    /// No scan comes before this time, ns.
    next_at: AtomicU64,
    /// The entry for system calls of the kernel that was scanned last.
    entry: AtomicU64,
}

impl Search {
    /// Whether it may be time for a scan, `now`, ns. `is_user_mode`, whether the vCPU that stops is in user
    /// mode, is called only where that matters.
    pub(super) fn is_due<E>(
        &self,
        now: u64,
        is_user_mode: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let scans = self.scans.load(Ordering::Relaxed);
        if scans >= MAX_SCANS || self.is_scanning.load(Ordering::Acquire) {
            return Ok(false);
        }
        if now < self.next_at.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut first_at = self.first_at.load(Ordering::Relaxed);
        if first_at == 0 {
            first_at = now.saturating_add(FIRST_NS);
            self.first_at.store(first_at, Ordering::Relaxed);
        }
        Ok(scans > 0 || now >= first_at || is_user_mode()?)
    }

    /// There was nothing to scan `now`, ns.
    pub(super) fn put_off(&self, now: u64) {
        let next_at = now.saturating_add(SECOND_NS);
        self.next_at.store(next_at, Ordering::Relaxed);
    }

    /// Whether a scan of the kernel with this entry for system calls begins `now`, ns. If it does, no other
    /// begins before [`Search::end`].
    pub(super) fn begin(&self, entry: u64, now: u64) -> bool {
        let scans = self.scans.load(Ordering::Relaxed);
        let interval = SECOND_NS.saturating_mul(1 << scans.min(16));
        let is_over = self.failures.load(Ordering::Relaxed) >= MAX_FAILURES;
        if is_over && self.entry.load(Ordering::Relaxed) == entry {
            self.put_off(now);
            return false;
        }
        if self.is_scanning.swap(true, Ordering::AcqRel) {
            return false;
        }
        if is_over {
            self.failures.store(0, Ordering::Relaxed);
        }
        self.entry.store(entry, Ordering::Relaxed);
        let next_at = now.saturating_add(interval.min(MAX_INTERVAL_NS));
        self.next_at.store(next_at, Ordering::Relaxed);
        true
    }

    /// A scan has come to its end. Returns whether this kernel is not going to be scanned again, because
    /// nothing was found in it.
    pub(super) fn end(&self, has_found: bool) -> bool {
        self.scans.fetch_add(1, Ordering::Relaxed);
        let failures = match has_found {
            true => 0,
            false => self.failures.load(Ordering::Relaxed) + 1,
        };
        self.failures.store(failures, Ordering::Relaxed);
        self.is_scanning.store(false, Ordering::Release);
        failures >= MAX_FAILURES
    }

    /// What was found in this kernel was wrong. It is not scanned again.
    pub(super) fn give_up(&self) {
        self.failures.store(MAX_FAILURES, Ordering::Relaxed);
    }

    /// Whether the kernel is not going to be scanned again, unless it is another one by then.
    pub(super) fn is_over(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= MAX_FAILURES
            || self.scans.load(Ordering::Relaxed) >= MAX_SCANS
    }

    /// Nothing is scanned any more.
    pub(super) fn stop(&self) {
        self.scans.store(MAX_SCANS, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u64 = 0xffff_ffff_8120_0000;

    fn is_due(search: &Search, now: u64, is_user_mode: bool) -> bool {
        let is_due = search.is_due::<()>(now, || Ok(is_user_mode));
        is_due.expect("readable")
    }

    /// The times, s, at which scans begin in the first `seconds` of a guest in user mode that stops once a
    /// second. `scan` returns the entry at a time, and what the scan there finds.
    fn scans(search: &Search, seconds: u64, scan: impl Fn(u64) -> (u64, bool)) -> Vec<u64> {
        let stops = (1..=seconds).filter(|second| {
            let now = second * SECOND_NS;
            let (entry, has_found) = scan(*second);
            let begins = is_due(search, now, true) && search.begin(entry, now);
            if begins {
                search.end(has_found);
            }
            begins
        });
        stops.collect()
    }

    #[test]
    fn the_first_scan_waits_for_user_mode_or_some_seconds() {
        let search = Search::default();
        assert!(!is_due(&search, 1, false));
        assert!(is_due(&search, 2, true));
        assert!(!is_due(&search, FIRST_NS, false));
        assert!(is_due(&search, FIRST_NS + 1, false));
    }

    #[test]
    fn a_guest_with_nothing_to_scan_is_checked_again_after_a_second() {
        let search = Search::default();
        assert!(is_due(&search, 1, true));
        search.put_off(1);
        assert!(!is_due(&search, SECOND_NS, true));
        assert!(is_due(&search, SECOND_NS + 1, true));
    }

    #[test]
    fn one_scan_is_made_at_a_time() {
        let search = Search::default();
        assert!(search.begin(ENTRY, 1));
        assert!(!is_due(&search, 100 * SECOND_NS, true));
        assert!(!search.begin(ENTRY, 100 * SECOND_NS));
        assert!(!search.end(false));
        assert!(is_due(&search, 100 * SECOND_NS, true));
    }

    #[test]
    fn a_kernel_without_a_count_is_scanned_a_few_times_and_another_one_again() {
        let search = Search::default();
        let times = scans(&search, 1000, |second| {
            (ENTRY + u64::from(second > 900), false)
        });
        assert_eq!(times[..4], [1, 2, 4, 8]);
        assert_eq!(times[4], 901, "the entry has changed");
    }

    #[test]
    fn a_kernel_whose_count_was_wrong_is_not_scanned_again() {
        let search = Search::default();
        assert!(search.begin(ENTRY, 1));
        search.end(true);
        search.give_up();
        let times = scans(&search, 1000, |second| {
            (ENTRY + u64::from(second > 900), true)
        });
        assert_eq!(times.first(), Some(&901), "the entry has changed");
    }

    #[test]
    fn a_guest_that_changes_its_kernel_all_the_time_is_scanned_rarely_and_not_for_ever() {
        let search = Search::default();
        let times = scans(&search, 10_000, |second| (second, second % 2 == 0));
        assert_eq!(times.len(), MAX_SCANS as usize);
        assert!(times.windows(2).skip(6).all(|two| two[1] - two[0] >= 64));
    }
}
