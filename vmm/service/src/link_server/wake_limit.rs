//! How often a process may report wakes of which there are none. Each report takes time of the link's thread, which all
//! guests share.
//!
//! A report that finds a vCPU awake costs its guest nothing, for that vCPU was commanded to sleep before. Of the others
//! a few are right: two vCPUs that wake at once may report twice, and the first report finds both.

use vcpu_sched::Ns;

/// Reports without a wake that may come at once.
const BURST: u32 = 256;
/// Time after which another one may come, ns.
const REFILL_NS: Ns = 1_000_000;
/// Pause in which the reports of a process that has sent too many are left unread, ns. The report that is then read
/// stands for all of them.
const PAUSE_NS: Ns = 5_000_000;

/// The limit of one process.
#[derive(Debug)]
pub(super) struct WakeLimit {
    left: u32,
    /// When the last one was added, ns.
    filled_at: Ns,
    /// When reports are read again, ns.
    paused_until: Option<Ns>,
}

impl WakeLimit {
    /// A full one at the time `now`, ns.
    pub(super) fn new(now: Ns) -> Self {
        Self {
            left: BURST,
            filled_at: now,
            paused_until: None,
        }
    }

    /// A report was read at the time `now`, ns, which found that `woken` vCPUs had woken. False: reports are not to be
    /// read until [`WakeLimit::paused_until`].
    #[must_use]
    pub(super) fn reported(&mut self, woken: usize, now: Ns) -> bool {
        let added = now.saturating_sub(self.filled_at) / REFILL_NS;
        self.filled_at += added * REFILL_NS;
        let added = added.saturating_add(woken as u64);
        self.left = u64::from(self.left)
            .saturating_add(added)
            .min(u64::from(BURST)) as u32;
        if woken > 0 {
            return true;
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.paused_until = Some(now.saturating_add(PAUSE_NS)),
        }
        self.paused_until.is_none()
    }

    /// When reports are read again, ns, if they are not.
    pub(super) fn paused_until(&self) -> Option<Ns> {
        self.paused_until
    }

    /// Reports are read again.
    pub(super) fn resume(&mut self) {
        self.paused_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_that_find_a_wake_are_not_limited_and_pay_for_another_one_each() {
        let mut limit = WakeLimit::new(0);
        for _ in 0..10 * BURST {
            assert!(limit.reported(1, 0) && limit.reported(0, 0));
        }
    }

    #[test]
    fn a_process_that_reports_wakes_of_which_there_are_none_has_a_pause() {
        let mut limit = WakeLimit::new(0);
        assert!((0..BURST).all(|_| limit.reported(0, 0)));
        assert!(!limit.reported(0, 0));
        assert_eq!(limit.paused_until(), Some(PAUSE_NS));
        limit.resume();
        assert_eq!(limit.paused_until(), None);
        assert!(limit.reported(0, PAUSE_NS));
        assert!((0..u64::from(BURST)).any(|_| !limit.reported(0, PAUSE_NS)));
    }
}
