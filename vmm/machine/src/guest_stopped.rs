//! Telling a guest that time was taken from one of its vCPUs.
//!
//! A guest's watchdogs go by the guest's clock, which goes on while a vCPU does not run: throttled by
//! its reservation, preempted for long, or with the whole process stopped (SIGSTOP, a debugger). A
//! vCPU that comes back after such a gap finds its watchdogs' time over, and they blame whatever it
//! runs. `KVM_KVMCLOCK_CTRL` sets `PVCLOCK_GUEST_STOPPED` in the clock structure that the vCPU has
//! registered, at its next entry.
//!
//! # What Linux does with it
//! (Read in 6.12: kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/workqueue.c, arch/x86/kernel/pvclock.c.)
//! The timer of the soft lockup detector, the RCU stall detector when it is about to complain, and the
//! workqueue watchdog look at the flag of the CPU that they run on, and clear it
//! (`kvm_check_and_clear_guest_paused`). If it was set, the soft lockup detector of that CPU, the RCU
//! stall detector and the clocksource watchdog begin anew, and the next look for hung tasks is left out
//! (`pvclock_touch_watchdogs`). None of these takes stolen time into account.
//!
//! Two do not look at the flag: the detector of expedited RCU stalls, and that of hard lockups. Where the
//! latter counts cycles it needs nothing, for none are counted outside of the guest; where a CPU watches
//! another (`CONFIG_HARDLOCKUP_DETECTOR_BUDDY`), it is not helped. Nor is a CPU that runs and finds
//! another, which does not, in the way of RCU for 21 s.
//!
//! # Which gaps are told
//! A guest that is told again and again has no watchdogs left, so only gaps of at least [`SHORTEST`]
//! are told, and not all of those. The shortest thresholds that Linux takes are 2 s for soft lockups
//! (`watchdog_thresh=1`) and 3 s for RCU stalls. By default they are 20 and 21 s: there a gap alone
//! does harm from 16 s on, since up to a sample period of 4 s comes on top of it.
//!
//! A vCPU whose kernel hangs does not halt, and is never found in user mode. One that has run for 20 s,
//! the default threshold, without a sign of life may hang, and is told of gaps from 16 s on only, so
//! that its detector comes to say so.
//!
//! An ioctl for each gap of a second is no cost; one for each turn would be.
//!
//! # What needs nothing here
//! When the host is suspended, KVM sets the flag by itself (`kvm_arch_suspend_notifier`), and the guest's
//! kvmclock counts that time. `KVM_SET_CLOCK`, by which the kvmclock of a guest can be made to stand still
//! during a gap, is not used: the TSC would go on, and time does pass for a guest that is throttled.

use std::time::Duration;

use kvm_ioctls::VcpuFd;

/// The shortest gap that is told: below the shortest threshold of any watchdog.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// A gap of this length alone makes watchdogs with default thresholds complain.
const CERTAIN: Duration = Duration::from_secs(16);
/// A vCPU that has run for so long without a sign of life may hang.
const MAY_HANG: Duration = Duration::from_secs(20);

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a gap of `gap_ns` nanoseconds is long enough to be told at all.
#[must_use]
pub fn is_long(gap_ns: u64) -> bool {
    gap_ns >= ns(SHORTEST)
}

/// The time that one vCPU has missed. Times in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// From when on it could have been in `KVM_RUN`.
    due: Option<u64>,
    /// How long it was ready to run since it ran last, as far as that is counted.
    waited: u64,
    /// How long it has run since it gave a sign of life.
    ran: u64,
}

impl Gaps {
    /// It has left `KVM_RUN` at `now`, and may go on there.
    pub(crate) fn leaves(&mut self, now: u64) {
        self.due = Some(now);
    }

    /// It has run for `ran`, and was not at rest.
    pub fn ran(&mut self, ran: u64) {
        self.ran = self.ran.saturating_add(ran);
    }

    /// It has halted, and goes on in `KVM_RUN` to sleep there.
    pub fn sleeps(&mut self) {
        self.ran = 0;
    }

    /// It has nothing to run until the time `until`, or until a sibling wakes it, and waits for that
    /// outside of `KVM_RUN`.
    pub fn idles(&mut self, until: Option<u64>) {
        self.due = until;
        self.ran = 0;
    }

    /// It was ready to run for `time`, and did not.
    pub fn waited(&mut self, time: u64) {
        self.waited = self.waited.saturating_add(time);
    }

    /// It enters `KVM_RUN` at `now`. How long it was kept from that.
    #[must_use]
    pub(crate) fn end(&mut self, now: u64) -> u64 {
        let due = self.due.take();
        let late = due.map_or(0, |due| now.saturating_sub(due));
        std::mem::take(&mut self.waited).max(late)
    }

    /// Whether its guest is to be told of a gap of `gap`. `in_user_mode`, whether the vCPU stands in user
    /// mode, is asked only where it matters.
    #[must_use]
    fn is_told(&mut self, gap: u64, in_user_mode: impl FnOnce() -> bool) -> bool {
        if !is_long(gap) {
            return false;
        }
        if gap >= ns(CERTAIN) || self.ran < ns(MAY_HANG) {
            return true;
        }
        let alive = in_user_mode();
        if alive {
            self.ran = 0;
        }
        alive
    }
}

/// Tells the guest of `fd` that this vCPU has missed `gap` nanoseconds, if it is to be told. Costs
/// nothing for a gap that is not [long](is_long), else an ioctl or two.
pub(crate) fn tell(fd: &VcpuFd, gaps: &mut Gaps, gap: u64) {
    // The processor's current privilege level is that of the stack segment.
    let in_user_mode = || fd.get_sregs().is_ok_and(|sregs| sregs.ss.dpl == 3);
    if gaps.is_told(gap, in_user_mode) {
        // Refused where the vCPU has registered no clock; then nobody looks for the flag.
        let _ = fd.kvmclock_ctrl();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn never_asked() -> bool {
        unreachable!("it does not matter here")
    }

    #[test]
    fn gaps_of_a_second_are_told_and_shorter_ones_are_not_however_many() {
        let mut gaps = Gaps::default();
        for _ in 0..1_000 {
            gaps.ran(SECOND / 100);
            gaps.waited(SECOND - 1);
            let gap = gaps.end(0);
            assert!(!gaps.is_told(gap, never_asked));
        }
        gaps.waited(SECOND);
        let gap = gaps.end(0);
        assert!(gaps.is_told(gap, never_asked));
        assert_eq!(gaps.end(0), 0);
    }

    #[test]
    fn a_vcpu_that_may_hang_is_told_of_no_gap_that_its_watchdog_can_bear() {
        let mut gaps = Gaps::default();
        let mut told = 0;
        // 4 s of each 10 s.
        for _ in 0..100 {
            gaps.ran(4 * SECOND);
            told += u32::from(gaps.is_told(6 * SECOND, || false));
        }
        assert_eq!(told, 4);
        assert!(gaps.is_told(16 * SECOND, never_asked));
    }

    #[test]
    fn a_vcpu_that_halts_or_is_found_in_user_mode_does_not_hang() {
        let mut gaps = Gaps::default();
        for round in 0..100 {
            gaps.ran(10 * SECOND);
            assert!(gaps.is_told(6 * SECOND, || round % 2 == 1));
        }
        for _ in 0..100 {
            gaps.ran(19 * SECOND);
            gaps.sleeps();
            assert!(gaps.is_told(6 * SECOND, never_asked));
        }
    }

    #[test]
    fn rest_is_no_gap_but_coming_late_is() {
        let mut gaps = Gaps::default();
        gaps.leaves(SECOND);
        gaps.idles(None);
        assert_eq!(gaps.end(100 * SECOND), 0);
        gaps.leaves(SECOND);
        gaps.idles(Some(100 * SECOND));
        assert_eq!(gaps.end(99 * SECOND), 0);
        assert_eq!(gaps.end(200 * SECOND), 0);
        gaps.leaves(100 * SECOND);
        gaps.sleeps();
        assert_eq!(gaps.end(103 * SECOND), 3 * SECOND);
        gaps.leaves(100 * SECOND);
        gaps.waited(SECOND);
        assert_eq!(gaps.end(103 * SECOND), 3 * SECOND);
    }
}
