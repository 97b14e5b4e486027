//! Whether the device's thread may touch the memory of a queue and its requests, or only the driver may.
//!
//! A driver that resets its device, or stops a queue, may use the memory for something else as soon as
//! the reset is complete. The thread may be in the middle of a request then, for instance reading a slow
//! disk, and no vCPU may wait for that. So the vCPUs' side revokes the access and goes on, and the thread
//! checks its access before each piece of memory that it touches. At most one bounded piece is being touched
//! at the time of the revocation; the device's registers show to the driver when that is over.

use std::sync::atomic::{AtomicU32, Ordering};

use super::queue_set::QueueSet;

/// Access to the memory of a device's queues.
#[derive(Debug, Default)]
pub(super) struct QueueAccess {
    /// The [`QueueSet`] of which the memory belongs to the driver again.
    revoked: AtomicU32,
    /// The [`QueueSet`] whose memory the thread touches now: one queue or none.
    touched: AtomicU32,
}

impl QueueAccess {
    /// Gives `queues` back to the driver. The thread starts to touch no further piece of their memory.
    pub(super) fn revoke(&self, queues: QueueSet) {
        self.revoked.fetch_or(queues.bits(), Ordering::SeqCst);
    }

    /// Gives access to all queues. The thread must have taken over all changes by the driver, so that it does
    /// not process an earlier queue.
    pub(super) fn restore(&self) {
        self.revoked.store(0, Ordering::SeqCst);
    }

    /// Whether the memory of queue `index` belongs to the driver again.
    pub(super) fn is_revoked(&self, index: usize) -> bool {
        QueueSet::from_bits(self.revoked.load(Ordering::SeqCst)).contains(index)
    }

    /// The queues whose memory the thread touches at this moment. A revoked queue that is not in the set will
    /// not be touched again.
    pub(super) fn touched(&self) -> QueueSet {
        QueueSet::from_bits(self.touched.load(Ordering::SeqCst))
    }

    /// On the device's thread: does `work` on memory of queue `index`, or returns `None` if the access is
    /// revoked. The work must be short, because a driver may wait for its end.
    pub(super) fn touch<T>(&self, index: usize, work: impl FnOnce() -> T) -> Option<T> {
        // Sequentially consistent on both sides: the other one writes `revoked` and then reads `touched`, so
        // that one of the two sees what the other has written.
        self.touched
            .store(QueueSet::only(index).bits(), Ordering::SeqCst);
        let done = (!self.is_revoked(index)).then(work);
        self.touched.store(0, Ordering::SeqCst);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoked_queues_are_not_touched_and_others_are() {
        let access = QueueAccess::default();
        access.revoke(QueueSet::only(1));
        assert_eq!(
            access.touch(0, || access.touched()),
            Some(QueueSet::only(0))
        );
        assert_eq!(access.touch(1, || ()), None);
        assert!(access.touched().is_empty());
        access.restore();
        assert_eq!(access.touch(1, || ()), Some(()));
    }

    #[test]
    fn queues_that_are_revoked_one_after_the_other_are_all_revoked() {
        let access = QueueAccess::default();
        access.revoke(QueueSet::only(0));
        access.revoke(QueueSet::only(2));
        let revoked = [0, 1, 2].map(|queue| access.is_revoked(queue));
        assert_eq!(revoked, [true, false, true]);
    }

    #[test]
    fn a_piece_that_is_touched_when_it_is_revoked_is_visible_to_its_end() {
        let access = QueueAccess::default();
        access.touch(2, || {
            access.revoke(QueueSet::ALL);
            assert_eq!(access.touched(), QueueSet::only(2));
        });
        assert!(access.touched().is_empty());
        assert!(access.touch(2, || ()).is_none());
    }
}
