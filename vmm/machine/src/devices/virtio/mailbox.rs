//! What the vCPUs' side wants of a device's thread.
//!
//! One place, not a list: a driver that resets its device over and over while the thread is busy must
//! not fill the host's memory, and of each queue only the last word counts.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::cpu_grant::Leave;
use super::queue_access::{self, Access};

/// What driver and device have agreed on when the driver starts the device; nothing after a reset.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// Feature bits that the driver has accepted.
    pub(super) features: u64,
    /// The queues.
    pub(super) queues: Vec<Queue>,
}

/// What the thread shall do, in this order.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Forget all of before and work on this.
    pub(super) setup: Option<Setup>,
    /// Put these in the place of the queues with these indices, each named once.
    pub(super) changes: Vec<(usize, Queue)>,
    /// End.
    pub(super) end: bool,
}

impl Order {
    fn is_nothing(&self) -> bool {
        self.setup.is_none() && self.changes.is_empty() && !self.end
    }

    fn change(&mut self, index: usize, queue: Queue) {
        match &mut self.setup {
            Some(setup) => {
                if let Some(place) = setup.queues.get_mut(index) {
                    *place = queue;
                }
            }
            None => {
                self.changes.retain(|(other, _)| *other != index);
                self.changes.push((index, queue));
            }
        }
    }
}

/// The place for an order.
#[derive(Debug)]
pub(super) struct Orders {
    latest: Mutex<Order>,
    /// There is one; for those who look often.
    waiting: AtomicBool,
    /// Whose the memory of the queues is.
    access: Access,
    /// Readable when there may be an order.
    attention: EventFd,
    /// When the thread may work.
    leave: Leave,
}

impl Orders {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            latest: Mutex::default(),
            waiting: AtomicBool::new(false),
            access: Access::default(),
            attention: EventFd::new(EFD_NONBLOCK)?,
            leave: Leave::default(),
        })
    }

    /// Work on what is agreed on now. The queues of before are the driver's when this returns, but for
    /// one piece of memory, if the thread touches it: see [`Access::touched`].
    pub(super) fn set_up(&self, setup: Setup) {
        self.give(queue_access::ALL, |order| {
            order.changes.clear();
            order.setup = Some(setup);
        });
    }

    /// Work on `queue` as queue `index`, or on none there if it is not ready. The one of before is the
    /// driver's as above.
    pub(super) fn change(&self, index: usize, queue: Queue) {
        self.give(queue_access::bit(index), |order| order.change(index, queue));
    }

    /// End.
    pub(super) fn end(&self) {
        self.give(queue_access::ALL, |order| order.end = true);
    }

    fn give(&self, revoked: u32, put: impl FnOnce(&mut Order)) {
        let mut latest = self.lock();
        put(&mut latest);
        // Both under the lock, or the thread could take the order before, and undo this after.
        self.access.revoke(revoked);
        self.waiting.store(true, Ordering::Release);
        drop(latest);
        // Only a counter at its maximum refuses, and then the thread is awake.
        let _ = self.attention.write(1);
    }

    /// The order that waits, if one does. The thread works on no queue of before any more.
    pub(super) fn take(&self) -> Option<Order> {
        let _ = self.attention.read();
        let mut latest = self.lock();
        self.waiting.store(false, Ordering::Release);
        let order = mem::take(&mut *latest);
        if !order.end {
            self.access.restore();
        }
        (!order.is_nothing()).then_some(order)
    }

    /// Whether an order waits.
    pub(super) fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Between two requests: waits until the thread may go on. Gives whether it shall not, because an
    /// order waits or because it may never work again.
    pub(super) fn waiting_after_pause(&self) -> bool {
        self.leave.pause_if_over();
        self.waiting() || self.leave.is_over()
    }

    /// Between two pieces of a request in queue `index`: the same, but an order that leaves this queue
    /// alone has time.
    pub(super) fn may_go_on_after_pause(&self, index: usize) -> bool {
        self.leave.pause_if_over();
        !self.access.is_revoked(index) && !self.leave.is_over()
    }

    /// Whose the memory of the queues is.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// When the thread may work.
    pub(super) fn leave(&self) -> &Leave {
        &self.leave
    }

    /// What is readable when there may be an order.
    pub(super) fn attention(&self) -> &EventFd {
        &self.attention
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use virtio_queue::QueueT;

    use super::*;

    fn queue(ready: bool) -> Queue {
        let mut queue = Queue::new(16).expect("a queue");
        queue.set_ready(ready);
        queue
    }

    #[test]
    fn only_the_last_order_is_kept() {
        let orders = Orders::new().expect("orders");
        for _ in 0..1000 {
            orders.set_up(Setup::default());
            orders.change(0, queue(false));
        }
        orders.end();
        assert!(orders.waiting());
        assert!(orders.access().touch(0, || ()).is_none());
        let order = orders.take().expect("an order");
        assert!(order.end && order.changes.is_empty());
        assert!(orders.take().is_none() && !orders.waiting());
    }

    #[test]
    fn a_queue_that_is_stopped_is_the_drivers_and_others_are_not() {
        let orders = Orders::new().expect("orders");
        for ready in [false, true, false] {
            orders.change(1, queue(ready));
        }
        assert!(orders.waiting());
        assert!(orders.may_go_on_after_pause(0) && !orders.may_go_on_after_pause(1));
        let order = orders.take().expect("an order");
        assert!(order.setup.is_none() && !order.end);
        let changes: Vec<_> = order
            .changes
            .iter()
            .map(|(at, q)| (*at, q.ready()))
            .collect();
        assert_eq!(changes, [(1, false)]);
        assert!(orders.may_go_on_after_pause(1));
    }

    #[test]
    fn what_is_said_of_a_queue_before_a_reset_is_void_and_after_a_start_is_part_of_it() {
        let orders = Orders::new().expect("orders");
        orders.change(0, queue(true));
        orders.set_up(Setup {
            features: 5,
            queues: vec![queue(true), queue(true)],
        });
        orders.change(1, queue(false));
        let order = orders.take().expect("an order");
        assert!(order.changes.is_empty());
        let setup = order.setup.expect("a setup");
        assert_eq!(setup.features, 5);
        let ready: Vec<_> = setup.queues.iter().map(QueueT::ready).collect();
        assert_eq!(ready, [true, false]);
    }
}
