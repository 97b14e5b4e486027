//! What the vCPUs' side wants of a device's thread.
//!
//! One place, not a list: a driver that resets its device over and over while the thread is busy must
//! not fill the host's memory, and only the last word counts.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::leave::Leave;

/// What the thread shall do.
#[derive(Debug)]
pub(super) enum Order {
    /// Work on these queues; on none after a reset.
    Work(Vec<Queue>),
    /// End.
    End,
}

/// The place for an order.
#[derive(Debug)]
pub(super) struct Orders {
    latest: Mutex<Option<Order>>,
    /// There is one; for those who look often.
    waiting: AtomicBool,
    /// Readable when there may be one.
    attention: EventFd,
    /// When the thread may work.
    leave: Leave,
}

impl Orders {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            latest: Mutex::new(None),
            waiting: AtomicBool::new(false),
            attention: EventFd::new(EFD_NONBLOCK)?,
            leave: Leave::default(),
        })
    }

    /// Takes the place of an order that has not been heard. When this returns, the thread does not
    /// write to queues of before any more.
    pub(super) fn give(&self, order: Order) {
        let mut latest = self.lock();
        *latest = Some(order);
        // Under the lock, or it could say so after the order has been taken.
        self.waiting.store(true, Ordering::Release);
        drop(latest);
        // Only a counter at its maximum refuses, and then the thread is awake.
        let _ = self.attention.write(1);
    }

    /// The order that waits, if one does.
    pub(super) fn take(&self) -> Option<Order> {
        let _ = self.attention.read();
        let mut latest = self.lock();
        self.waiting.store(false, Ordering::Release);
        latest.take()
    }

    /// Whether an order waits: what is under way is then for nobody.
    pub(super) fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Between two pieces of work: waits until the thread may go on. Gives whether it shall not,
    /// because an order waits or because it may never work again.
    pub(super) fn waiting_after_pause(&self) -> bool {
        self.leave.pause_if_over();
        self.waiting() || self.leave.is_over()
    }

    /// When the thread may work.
    pub(super) fn leave(&self) -> &Leave {
        &self.leave
    }

    /// Does `work` unless an order waits; none comes meanwhile, so it must be short.
    pub(super) fn unless_waiting<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let latest = self.lock();
        latest.is_none().then(work)
    }

    /// What is readable when there may be an order.
    pub(super) fn attention(&self) -> &EventFd {
        &self.attention
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_order_is_kept() {
        let orders = Orders::new().expect("orders");
        for _ in 0..1000 {
            orders.give(Order::Work(Vec::new()));
        }
        orders.give(Order::End);
        assert!(orders.waiting());
        assert!(orders.unless_waiting(|| ()).is_none());
        assert!(matches!(orders.take(), Some(Order::End)));
        assert!(orders.take().is_none() && !orders.waiting());
        assert!(orders.unless_waiting(|| ()).is_some());
    }
}
