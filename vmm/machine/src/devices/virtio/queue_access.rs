//! Who has the memory of a queue's requests: the device's thread, or the driver again.
//!
//! A driver that resets its device, or stops a queue, may use the memory for something else as soon as
//! that is done. A request can be under way then, in a read of a slow disk for instance, and no vCPU may
//! be made to wait for that. So the vCPUs' side revokes the access and goes on, and the thread asks before
//! each piece of memory that it touches. What it touches at that very moment is one bounded piece, and
//! the driver reads in the device's registers whether that is over.

use std::sync::atomic::{AtomicU32, Ordering};

/// Access to the memory of a device's queues, up to 32.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// A bit for each queue that the driver has back.
    revoked: AtomicU32,
    /// The bit of the queue whose memory the thread touches now.
    touched: AtomicU32,
}

/// All queues.
pub(super) const ALL: u32 = u32::MAX;

/// The bit of queue `index`; of one that has none, all.
pub(super) fn bit(index: usize) -> u32 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1u32.checked_shl(index))
        .unwrap_or(ALL)
}

impl Access {
    /// The driver has these queues back: the thread begins to touch nothing of theirs any more.
    pub(super) fn revoke(&self, queues: u32) {
        self.revoked.fetch_or(queues, Ordering::SeqCst);
    }

    /// The thread has heard of all that the driver wants and works on no queue of before.
    pub(super) fn restore(&self) {
        self.revoked.store(0, Ordering::SeqCst);
    }

    /// Whether the driver has queue `index` back.
    pub(super) fn is_revoked(&self, index: usize) -> bool {
        self.revoked.load(Ordering::SeqCst) & bit(index) != 0
    }

    /// The queues that are touched at this moment. If a revoked one is not among them, it will not be
    /// touched again.
    pub(super) fn touched(&self) -> u32 {
        self.touched.load(Ordering::SeqCst)
    }

    /// On the device's thread: does `work` on memory of queue `index`, or nothing if the driver has it
    /// back. The work must be short: a driver may wait for its end.
    pub(super) fn touch<T>(&self, index: usize, work: impl FnOnce() -> T) -> Option<T> {
        // Sequentially consistent, as is the other side, which writes `revoked` and then reads
        // `touched`: one of the two sees what the other has written.
        self.touched.store(bit(index), Ordering::SeqCst);
        let done = (!self.is_revoked(index)).then(work);
        self.touched.store(0, Ordering::SeqCst);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_has_back_is_not_touched_and_other_queues_are() {
        let access = Access::default();
        access.revoke(bit(1));
        assert_eq!(access.touch(0, || access.touched()), Some(bit(0)));
        assert_eq!(access.touch(1, || ()), None);
        assert_eq!(access.touched(), 0);
        access.restore();
        assert_eq!(access.touch(1, || ()), Some(()));
    }

    #[test]
    fn a_piece_that_is_touched_when_it_is_revoked_is_seen_to_its_end() {
        let access = Access::default();
        access.touch(2, || {
            access.revoke(ALL);
            assert_eq!(access.touched(), bit(2));
        });
        assert_eq!(access.touched(), 0);
        assert!(access.touch(2, || ()).is_none());
    }
}
