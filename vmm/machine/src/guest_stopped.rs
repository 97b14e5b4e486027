//! Reporting to a guest that time was taken from one of its vCPUs.
//!
//! A guest's watchdogs go by the guest's clock, which goes on while a vCPU does not run: throttled by
//! its reservation, preempted for long, or with the whole process stopped (SIGSTOP, a debugger). When a
//! vCPU runs again after such a gap, the time of its watchdogs is over, and they blame whatever the vCPU
//! runs. `KVM_KVMCLOCK_CTRL` sets `PVCLOCK_GUEST_STOPPED` in the clock structure that the vCPU has
//! registered, at its next entry.
//!
//! # What Linux does with it
//! (Read in 6.12: kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/workqueue.c, arch/x86/kernel/pvclock.c.)
//! Three watchdogs check the flag of the CPU on which they run, and clear it
//! (`kvm_check_and_clear_guest_paused`): the timer of the soft lockup detector, the RCU stall detector
//! when it is about to complain, and the workqueue watchdog. If the flag was set, the soft lockup detector
//! of that CPU, the RCU stall detector and the clocksource watchdog begin anew, and the next check for hung
//! tasks is skipped (`pvclock_touch_watchdogs`). None of these takes stolen time into account.
//!
//! Two watchdogs do not check the flag: the detector of expedited RCU stalls, and that of hard lockups.
//! Where the latter counts cycles it needs no help, because no cycles are counted outside of the guest.
//! Where a CPU watches another (`CONFIG_HARDLOCKUP_DETECTOR_BUDDY`), the flag does not help. Nor does the
//! flag help a CPU that runs and finds that another CPU, which does not run, has delayed RCU for 21 s.
//!
//! # Which gaps are reported
//! A guest to which gaps are reported again and again has no watchdogs left. So only gaps of at least
//! [`SHORTEST`] are reported, and not all of those. The shortest thresholds that Linux accepts are 2 s for
//! soft lockups (`watchdog_thresh=1`) and 3 s for RCU stalls. By default they are 20 and 21 s: there a gap
//! alone does harm from 16 s on, since up to a sample period of 4 s comes on top of the gap.
//!
//! A vCPU whose kernel hangs does not halt, and is never found in user mode. A vCPU that has run for 20 s,
//! the default threshold, without a sign of life may hang. Only gaps from 16 s on are reported to such a
//! vCPU, so that its detector can report the hang.
//!
//! An ioctl for each gap of a second costs little. An ioctl for each time that a vCPU stops would cost much.
//!
//! # What needs nothing here
//! When the host is suspended, KVM sets the flag by itself (`kvm_arch_suspend_notifier`), and the guest's
//! kvmclock counts that time. `KVM_SET_CLOCK`, which can make the kvmclock of a guest stand still during a
//! gap, is not used: the TSC would go on, and time does pass for a guest that is throttled.

use std::time::Duration;

use kvm_ioctls::VcpuFd;

/// The shortest gap that is reported: below the shortest threshold of any watchdog.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// A gap of this length alone makes watchdogs with default thresholds complain.
const CERTAIN: Duration = Duration::from_secs(16);
/// A vCPU that has run for so long without a sign of life may hang.
const MAY_HANG: Duration = Duration::from_secs(20);

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a gap of `gap_ns` nanoseconds is long enough to be reported at all.
#[must_use]
pub fn is_long(gap_ns: u64) -> bool {
    gap_ns >= ns(SHORTEST)
}

/// The time that one vCPU has missed. Times in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// From when on the vCPU could have been in `KVM_RUN`.
    due: Option<u64>,
    /// For how long the vCPU was ready to run since it ran last, as far as that is counted.
    waited: u64,
    /// For how long the vCPU has run since its last sign of life.
    ran: u64,
}

impl Gaps {
    /// Records that the vCPU has left `KVM_RUN` at `now`, and may go on there.
    pub(crate) fn left_guest(&mut self, now: u64) {
        self.due = Some(now);
    }

    /// Records that the vCPU has run for `ran`, without a halt.
    pub fn ran(&mut self, ran: u64) {
        self.ran = self.ran.saturating_add(ran);
    }

    /// Records that the vCPU has halted, and goes on in `KVM_RUN` to sleep there.
    pub fn sleeps(&mut self) {
        self.ran = 0;
    }

    /// Records that the vCPU has nothing to run until the time `until`, or until another vCPU wakes it, and
    /// waits outside of `KVM_RUN`.
    pub fn idles(&mut self, until: Option<u64>) {
        self.due = until;
        self.ran = 0;
    }

    /// Records that the vCPU was ready to run for `time`, and did not run.
    pub fn waited(&mut self, time: u64) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Records that the vCPU enters `KVM_RUN` at `now`, and returns for how long the vCPU was kept from
    /// that.
    #[must_use]
    pub(crate) fn end(&mut self, now: u64) -> u64 {
        let due = self.due.take();
        let late = due.map_or(0, |due| now.saturating_sub(due));
        std::mem::take(&mut self.waited).max(late)
    }

    /// Whether a gap of `gap` is to be reported to the guest. `in_user_mode`, whether the vCPU is in user mode,
    /// is called only where that matters.
    #[must_use]
    fn is_reported(&mut self, gap: u64, in_user_mode: impl FnOnce() -> bool) -> bool {
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

/// Reports to the guest of `fd` that this vCPU has missed `gap` nanoseconds, if that is to be reported. Costs
/// nothing for a gap that is not [long](is_long), else one or two ioctls.
pub(crate) fn report(fd: &VcpuFd, gaps: &mut Gaps, gap: u64) {
    // The processor's current privilege level is that of the stack segment.
    let in_user_mode = || fd.get_sregs().is_ok_and(|sregs| sregs.ss.dpl == 3);
    if gaps.is_reported(gap, in_user_mode) {
        // Refused where the vCPU has registered no clock. Then no watchdog checks the flag either.
        let _ = fd.kvmclock_ctrl();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn not_needed() -> bool {
        unreachable!("it does not matter here")
    }

    #[test]
    fn gaps_of_a_second_are_reported_and_shorter_ones_are_not_however_many() {
        let mut gaps = Gaps::default();
        for _ in 0..1_000 {
            gaps.ran(SECOND / 100);
            gaps.waited(SECOND - 1);
            let gap = gaps.end(0);
            assert!(!gaps.is_reported(gap, not_needed));
        }
        gaps.waited(SECOND);
        let gap = gaps.end(0);
        assert!(gaps.is_reported(gap, not_needed));
        assert_eq!(gaps.end(0), 0);
    }

    #[test]
    fn to_a_vcpu_that_may_hang_no_gap_is_reported_that_its_watchdog_can_bear() {
        let mut gaps = Gaps::default();
        let mut reported = 0;
        // 4 s of each 10 s.
        for _ in 0..100 {
            gaps.ran(4 * SECOND);
            reported += u32::from(gaps.is_reported(6 * SECOND, || false));
        }
        assert_eq!(reported, 4);
        assert!(gaps.is_reported(16 * SECOND, not_needed));
    }

    #[test]
    fn a_vcpu_that_halts_or_is_found_in_user_mode_does_not_hang() {
        let mut gaps = Gaps::default();
        for round in 0..100 {
            gaps.ran(10 * SECOND);
            assert!(gaps.is_reported(6 * SECOND, || round % 2 == 1));
        }
        for _ in 0..100 {
            gaps.ran(19 * SECOND);
            gaps.sleeps();
            assert!(gaps.is_reported(6 * SECOND, not_needed));
        }
    }

    #[test]
    fn rest_is_no_gap_but_a_late_return_from_it_is() {
        let mut gaps = Gaps::default();
        gaps.left_guest(SECOND);
        gaps.idles(None);
        assert_eq!(gaps.end(100 * SECOND), 0);
        gaps.left_guest(SECOND);
        gaps.idles(Some(100 * SECOND));
        assert_eq!(gaps.end(99 * SECOND), 0);
        assert_eq!(gaps.end(200 * SECOND), 0);
        gaps.left_guest(100 * SECOND);
        gaps.sleeps();
        assert_eq!(gaps.end(103 * SECOND), 3 * SECOND);
        gaps.left_guest(100 * SECOND);
        gaps.waited(SECOND);
        assert_eq!(gaps.end(103 * SECOND), 3 * SECOND);
    }
}
