//! A device's thread: it sleeps until the driver notifies a queue, or something comes from outside.
//!
//! A reset does not wait for a request that is under way, for that would make a vCPU's executor wait
//! for a disk: the thread may still work on such a request, but no longer touches its memory or its
//! queue (`access.rs`). A request that takes long looks for a reset between its parts.
//!
//! Nor does it wait for a driver that never stops: after a stretch of work it yields the CPU and looks
//! for what else there is, orders first.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::cpu_grant::Granter;
use super::irq_trigger::Interrupt;
use super::mailbox::{Orders, Setup};
use super::queue_access::Access;
use super::{Device, Rings};

/// A device's thread; ends when dropped.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread of `device`, whose queues are notified by `kicks`.
    pub(super) fn spawn(
        slot: u32,
        device: Box<dyn Device>,
        kicks: Vec<EventFd>,
        memory: GuestMemoryMmap,
        interrupt: Arc<Interrupt>,
    ) -> io::Result<Self> {
        let orders = Arc::new(Orders::new()?);
        let served = Served {
            source: device.source().transpose()?,
            calls: (0..kicks.len()).map(|index| device.calls(index)).collect(),
            device,
            kicks,
            rings: Rings::new(memory, interrupt, Arc::clone(&orders)),
            orders: Arc::clone(&orders),
            over: Arc::default(),
        };
        let over = Arc::clone(&served.over);
        let mut manager =
            EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(io::Error::other)?;
        manager.add_subscriber(Box::new(served));
        let thread = thread::Builder::new()
            .name(format!("virtio{slot}"))
            .spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Acquire) && manager.run().is_ok() {}
            })?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// From now on the thread works only when `granter` lets it.
    pub(super) fn ask_for_leave(&self, granter: Arc<dyn Granter>) {
        self.orders.leave().ask_from_now_on(granter);
    }

    /// Works on this from now on, and on nothing of before.
    pub(super) fn set_up(&self, setup: Setup) {
        self.orders.set_up(setup);
    }

    /// Works on `queue` as queue `index` from now on, or leaves that alone if it is not ready.
    pub(super) fn change(&self, index: usize, queue: Queue) {
        self.orders.change(index, queue);
    }

    /// Whose the memory of the queues is.
    pub(super) fn access(&self) -> &Access {
        self.orders.access()
    }
}

impl Worker {
    /// Asks the thread to end, and does not wait for it.
    pub(super) fn end(&self) {
        self.orders.end();
        // It may wait for leave, which nobody gives any more.
        self.orders.leave().close();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            // The last who knew the guest may be this thread, on its way to or from the policy: it ends by
            // itself, and cannot be waited for.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Served {
    device: Box<dyn Device>,
    kicks: Vec<EventFd>,
    source: Option<i32>,
    /// By queue: [`Device::calls`].
    calls: Vec<Option<i32>>,
    orders: Arc<Orders>,
    rings: Rings,
    over: Arc<std::sync::atomic::AtomicBool>,
}

impl Served {
    fn obey(&mut self) {
        let Some(order) = self.orders.take() else {
            return;
        };
        if order.end {
            return self.over.store(true, std::sync::atomic::Ordering::Release);
        }
        if let Some(setup) = order.setup {
            self.rings.setup = setup;
            self.device.restarted(&self.rings);
        }
        for (index, queue) in order.changes {
            if let Some(place) = self.rings.setup.queues.get_mut(index) {
                *place = queue;
            }
        }
        // The driver may have notified before this was heard, and what was under way has been left.
        for index in 0..self.kicks.len() {
            self.serve(index);
        }
    }

    fn serve(&mut self, index: usize) {
        self.device.serve(index, &mut self.rings);
        self.go_on_later();
    }

    /// `file` has become readable.
    fn work_for(&mut self, file: RawFd) {
        if file == self.orders.attention().as_raw_fd() {
            return self.obey();
        }
        if Some(file) == self.source {
            self.device.arrived(&mut self.rings);
            return self.go_on_later();
        }
        if let Some(index) = self.calls.iter().position(|call| *call == Some(file)) {
            return self.serve(index);
        }
        let kicked = self.kicks.iter().position(|kick| kick.as_raw_fd() == file);
        if let Some(index) = kicked {
            let _ = self.kicks[index].read();
            self.serve(index);
        }
    }

    /// Comes back to what was left unfinished when all else has had its turn, other programs of this
    /// host CPU too.
    fn go_on_later(&mut self) {
        let mut more = false;
        for (index, kick) in self.kicks.iter().enumerate() {
            if self.rings.take_unfinished(index) {
                // Only a counter at its maximum refuses, and then the notification is there.
                let _ = kick.write(1);
                more = true;
            }
        }
        if more {
            thread::yield_now();
        }
    }
}

impl MutEventSubscriber for Served {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let orders = Arc::clone(&self.orders);
        let file = events.fd();
        if orders.leave().begin() {
            self.work_for(file);
        } else if file == orders.attention().as_raw_fd() {
            self.obey();
        } else {
            // It would be reported again and again.
            let _ = ops.remove(Events::new_raw(file, EventSet::empty()));
        }
        orders.leave().end();
    }

    fn init(&mut self, ops: &mut EventOps) {
        // Fails only when the host is out of memory; the device is deaf then.
        let _ = ops.add(Events::new(self.orders.attention(), EventSet::IN));
        for kick in &self.kicks {
            let _ = ops.add(Events::new(kick, EventSet::IN));
        }
        // Once for each: what has no room stays where it is until the driver makes some, and a timer is
        // not read.
        for source in self.calls.iter().flatten().chain(&self.source) {
            let _ = ops.add(Events::new_raw(
                *source,
                EventSet::IN | EventSet::EDGE_TRIGGERED,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use std::time::{Duration, Instant};

    use virtio_queue::QueueT;
    use virtio_queue::desc::{RawDescriptor, split::Descriptor};
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::GuestAddress;

    use super::super::rate_limiter::Throttle;
    use super::super::rate_limiter::tests::per_100ms;
    use super::*;
    use baton_config::rate::RateLimit;

    /// A device that tells of each restart how many queues there are.
    struct Telling(Sender<usize>);

    impl Device for Telling {
        fn kind(&self) -> u32 {
            2
        }

        fn features(&self) -> u64 {
            0
        }

        fn queues(&self) -> usize {
            1
        }

        fn config(&self) -> Vec<u8> {
            Vec::new()
        }

        fn serve(&mut self, _: usize, _: &mut Rings) {}

        fn restarted(&mut self, rings: &Rings) {
            // Nobody listens any more when the test has failed.
            let _ = self.0.send(rings.setup.queues.len());
        }
    }

    #[test]
    fn a_device_hears_of_each_start_and_reset() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
        let (told, restarts) = channel();
        let worker = Worker::spawn(0, Box::new(Telling(told)), Vec::new(), memory, interrupt)
            .expect("a thread");
        for queues in [1, 0, 2] {
            let new = || Queue::new(16).expect("a queue");
            worker.set_up(Setup {
                features: 0,
                queues: (0..queues).map(|_| new()).collect(),
            });
            assert_eq!(restarts.recv(), Ok(queues));
        }
        worker.set_up(Setup::default());
        assert_eq!(restarts.recv(), Ok(0));
        drop(worker);
        assert!(restarts.recv().is_err());
    }

    /// A device that does nothing, but not too often.
    struct Limited(Throttle);

    impl Device for Limited {
        fn kind(&self) -> u32 {
            4
        }

        fn features(&self) -> u64 {
            0
        }

        fn queues(&self) -> usize {
            1
        }

        fn config(&self) -> Vec<u8> {
            Vec::new()
        }

        fn calls(&self, _: usize) -> Option<i32> {
            self.0.calls()
        }

        fn serve(&mut self, index: usize, rings: &mut Rings) {
            rings.each(index, |_| self.0.admits(|| 0).then_some(0));
        }
    }

    /// Waits until the device has carried out so many requests.
    fn wait_for(mock: &MockSplitQueue<GuestMemoryMmap>, done: u16) {
        let patience = Instant::now() + Duration::from_secs(60);
        while u16::from_le(mock.used().idx().load()) < done {
            assert!(Instant::now() < patience, "requests stay in the queue");
            thread::yield_now();
        }
    }

    #[test]
    fn a_queue_that_is_started_later_is_served_at_once() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        let mock = MockSplitQueue::new(&memory, 16);
        let part = RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0));
        mock.add_desc_chains(&[part], 0).expect("a request");
        let device = Limited(Throttle::new(&RateLimit::default()).expect("no timer"));
        let kick = EventFd::new(0).expect("an event");
        let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
        let worker = Worker::spawn(0, Box::new(device), vec![kick], memory.clone(), interrupt)
            .expect("a thread");
        worker.set_up(Setup {
            features: 0,
            queues: vec![Queue::new(16).expect("a queue")],
        });
        // What is said before that is heard becomes a part of it.
        while worker.orders.waiting() {
            thread::yield_now();
        }
        worker.change(0, mock.create_queue().expect("a queue"));
        wait_for(&mock, 1);
    }

    #[test]
    fn a_queue_that_was_left_for_want_of_tokens_is_served_when_there_are_some() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        let mock = MockSplitQueue::new(&memory, 16);
        for at in 0..4 {
            let part = RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0));
            mock.add_desc_chains(&[part], at).expect("a request");
        }
        let limit = RateLimit {
            bandwidth: None,
            ops: per_100ms(1),
        };
        let device = Limited(Throttle::new(&limit).expect("a timer"));
        let kick = EventFd::new(0).expect("an event");
        let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
        let worker = Worker::spawn(0, Box::new(device), vec![kick], memory.clone(), interrupt)
            .expect("a thread");
        // Nobody notifies after this.
        worker.set_up(Setup {
            features: 0,
            queues: vec![mock.create_queue().expect("a queue")],
        });
        wait_for(&mock, 4);
    }
}
