//! Passes on what the driver does, from the vCPUs' side to the device's thread.
//!
//! A mailbox holds one message, not a list. A driver that resets its device over and over while the
//! thread is busy must not fill the host's memory, and only the last state of each queue counts.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::cpu_grant::CpuGrant;
use super::features::Features;
use super::queue_access::QueueAccess;
use super::queue_set::QueueSet;

/// What driver and device have negotiated when the driver starts the device; empty after a reset.
#[derive(Debug, Default)]
pub(super) struct DriverSetup {
    /// Features that the driver has accepted.
    pub(super) features: Features,
    /// The queues.
    pub(super) queues: Vec<Queue>,
}

/// What the thread must do, in the sequence of these fields.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Discard the previous setup and work with this one.
    pub(super) setup: Option<DriverSetup>,
    /// Replace the queues with these indices, each named once.
    pub(super) replaced: Vec<(usize, Queue)>,
    /// End.
    pub(super) end: bool,
}

impl Message {
    fn is_empty(&self) -> bool {
        self.setup.is_none() && self.replaced.is_empty() && !self.end
    }

    fn set_up(&mut self, setup: DriverSetup) {
        self.replaced.clear();
        self.setup = Some(setup);
    }

    fn replace(&mut self, index: usize, queue: Queue) {
        match &mut self.setup {
            Some(setup) => {
                if let Some(replaced) = setup.queues.get_mut(index) {
                    *replaced = queue;
                }
            }
            None => {
                self.replaced.retain(|(other, _)| *other != index);
                self.replaced.push((index, queue));
            }
        }
    }
}

/// The mailbox of one device's thread, with the conditions under which the thread may work.
#[derive(Debug)]
pub(super) struct Mailbox {
    latest: Mutex<Message>,
    /// Whether there is a message; the thread checks this after each request.
    has_message: AtomicBool,
    /// Which queues the thread may touch.
    access: QueueAccess,
    /// Readable when there may be a message.
    event: EventFd,
    /// When the thread may work.
    grant: CpuGrant,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            latest: Mutex::default(),
            has_message: AtomicBool::new(false),
            access: QueueAccess::default(),
            event: EventFd::new(EFD_NONBLOCK)?,
            grant: CpuGrant::default(),
        })
    }

    /// The thread is to work with `setup`. When this returns, the previous queues belong to the driver,
    /// except for one piece of memory if the thread touches it just then: see [`QueueAccess::touched`].
    pub(super) fn set_up(&self, setup: DriverSetup) {
        self.put(QueueSet::ALL, |message| message.set_up(setup));
    }

    /// The thread is to work with `queue` as queue `index`, or to stop that queue if `queue` is not ready. The
    /// previous queue belongs to the driver, as in [`Self::set_up`].
    pub(super) fn replace_queue(&self, index: usize, queue: Queue) {
        self.put(QueueSet::only(index), |message| {
            message.replace(index, queue);
        });
    }

    /// The thread is to end. Does not wait for that.
    pub(super) fn end(&self) {
        self.put(QueueSet::ALL, |message| message.end = true);
        // The thread may wait for a grant that the scheduler never gives.
        self.grant.close();
    }

    fn put(&self, revoked: QueueSet, change: impl FnOnce(&mut Message)) {
        let mut latest = self.lock();
        change(&mut latest);
        // Both under the lock. Otherwise the thread could take the message before this and restore the access
        // after it.
        self.access.revoke(revoked);
        self.has_message.store(true, Ordering::Release);
        drop(latest);
        // The write fails only if the counter is at its maximum, and then the thread is awake.
        let _ = self.event.write(1);
    }

    /// Takes the message, if there is one. The caller must not process a previous queue after this.
    pub(super) fn take(&self) -> Option<Message> {
        let _ = self.event.read();
        let mut latest = self.lock();
        self.has_message.store(false, Ordering::Release);
        let message = mem::take(&mut *latest);
        if !message.end {
            self.access.restore();
        }
        (!message.is_empty()).then_some(message)
    }

    pub(super) fn has_message(&self) -> bool {
        self.has_message.load(Ordering::Acquire)
    }

    /// Between two requests, on the device's thread: waits for a new CPU grant if the old one has expired.
    /// Returns false if the thread must not take another request now, because there is a message or because
    /// there will be no further grant.
    pub(super) fn may_take_request(&self) -> bool {
        self.grant.renew_if_expired();
        !self.has_message() && !self.grant.is_closed()
    }

    /// Between two pieces of a request in queue `index`, on the device's thread: waits like
    /// [`Self::may_take_request`]. Returns false if the request must end. A message about other queues does
    /// not end it.
    pub(super) fn may_continue_request(&self, index: usize) -> bool {
        self.grant.renew_if_expired();
        !self.access.is_revoked(index) && !self.grant.is_closed()
    }

    /// Which queues the thread may touch.
    pub(super) fn access(&self) -> &QueueAccess {
        &self.access
    }

    /// When the thread may work.
    pub(super) fn grant(&self) -> &CpuGrant {
        &self.grant
    }

    /// Readable when there may be a message.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    fn lock(&self) -> MutexGuard<'_, Message> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use virtio_queue::QueueT;

    use super::super::cpu_grant::CpuGranter;
    use super::*;

    fn queue(ready: bool) -> Queue {
        let mut queue = Queue::new(16).expect("a queue");
        queue.set_ready(ready);
        queue
    }

    /// Gives grants that have expired at once, until it is closed.
    #[derive(Debug, Default)]
    struct ShortGrants(AtomicBool);

    impl CpuGranter for ShortGrants {
        fn acquire(&self) -> Option<u64> {
            (!self.0.load(Ordering::Relaxed)).then_some(0)
        }

        fn release(&self, _: u64) {}

        fn is_revoked(&self) -> bool {
            false
        }

        fn close(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn with_grants() -> (Mailbox, Arc<ShortGrants>) {
        let (mailbox, granter) = (Mailbox::new().expect("a mailbox"), Arc::default());
        mailbox.grant().require(Arc::clone(&granter) as _);
        (mailbox, granter)
    }

    #[test]
    fn only_the_last_message_is_kept() {
        let mailbox = Mailbox::new().expect("a mailbox");
        for _ in 0..1000 {
            mailbox.set_up(DriverSetup::default());
            mailbox.replace_queue(0, queue(false));
        }
        mailbox.end();
        assert!(mailbox.has_message());
        assert!(mailbox.access().touch(0, || ()).is_none());
        let message = mailbox.take().expect("a message");
        assert!(message.end && message.replaced.is_empty());
        assert!(mailbox.take().is_none() && !mailbox.has_message());
    }

    #[test]
    fn a_thread_that_is_to_end_touches_no_memory_any_more_and_waits_for_no_grant() {
        let (mailbox, granter) = with_grants();
        mailbox.end();
        assert_eq!(granter.acquire(), None);
        assert!(mailbox.take().expect("a message").end);
        assert!(mailbox.access().touch(0, || ()).is_none());
    }

    #[test]
    fn no_request_is_taken_or_continued_without_a_further_grant() {
        let (mailbox, granter) = with_grants();
        assert!(mailbox.grant().acquire());
        assert!(mailbox.may_take_request() && mailbox.may_continue_request(0));
        granter.close();
        assert!(!mailbox.may_take_request() && !mailbox.may_continue_request(0));
    }

    #[test]
    fn no_request_is_taken_before_a_message() {
        let mailbox = Mailbox::new().expect("a mailbox");
        mailbox.replace_queue(1, queue(true));
        assert!(!mailbox.may_take_request());
        mailbox.take().expect("a message");
        assert!(mailbox.may_take_request());
    }

    #[test]
    fn a_queue_that_is_stopped_is_the_drivers_and_others_are_not() {
        let mailbox = Mailbox::new().expect("a mailbox");
        for ready in [false, true, false] {
            mailbox.replace_queue(1, queue(ready));
        }
        assert!(mailbox.has_message());
        assert!(mailbox.may_continue_request(0) && !mailbox.may_continue_request(1));
        let message = mailbox.take().expect("a message");
        assert!(message.setup.is_none() && !message.end);
        let replaced: Vec<_> = message
            .replaced
            .iter()
            .map(|(at, q)| (*at, q.ready()))
            .collect();
        assert_eq!(replaced, [(1, false)]);
        assert!(mailbox.may_continue_request(1));
    }

    #[test]
    fn a_queue_replaced_before_a_reset_is_void_and_one_replaced_after_a_start_is_part_of_it() {
        let mailbox = Mailbox::new().expect("a mailbox");
        mailbox.replace_queue(0, queue(true));
        mailbox.set_up(DriverSetup {
            features: Features::of(&[0, 2]),
            queues: vec![queue(true), queue(true)],
        });
        mailbox.replace_queue(1, queue(false));
        let message = mailbox.take().expect("a message");
        assert!(message.replaced.is_empty());
        let setup = message.setup.expect("a setup");
        assert_eq!(setup.features, Features::of(&[0, 2]));
        let ready: Vec<_> = setup.queues.iter().map(QueueT::ready).collect();
        assert_eq!(ready, [true, false]);
    }
}
