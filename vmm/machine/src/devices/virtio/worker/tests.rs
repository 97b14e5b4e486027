use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use baton_config::rate::RateLimit;
use virtio_queue::QueueT;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;

use super::super::features::Features;
use super::super::rate_limiter::RateLimiter;
use super::super::test_support::{memory, per_100ms, used};
use super::*;

/// A device that reports at each restart how many queues there are.
struct Reporting(Sender<usize>);

impl VirtioDevice for Reporting {
    fn device_id(&self) -> u32 {
        2
    }

    fn features(&self) -> Features {
        Features::default()
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    fn process_queue(&mut self, _: usize, _: &mut Queues) {}

    fn on_restart(&mut self, queues: &Queues) {
        // Fails if the test has failed and no longer receives.
        let _ = self.0.send(queues.setup.queues.len());
    }
}

#[test]
fn each_start_and_reset_is_reported_to_the_device() {
    let memory = memory();
    let irq = Arc::new(IrqTrigger::unconnected().expect("an eventfd"));
    let (reports, restarts) = channel();
    let worker =
        Worker::spawn(0, Box::new(Reporting(reports)), Vec::new(), memory, irq).expect("a thread");
    for queues in [1, 0, 2] {
        let new = || Queue::new(16).expect("a queue");
        worker.set_up(DriverSetup {
            features: Features::default(),
            queues: (0..queues).map(|_| new()).collect(),
        });
        assert_eq!(restarts.recv(), Ok(queues));
    }
    worker.set_up(DriverSetup::default());
    assert_eq!(restarts.recv(), Ok(0));
    drop(worker);
    assert!(restarts.recv().is_err());
}

/// A device that does nothing, within a rate limit.
struct Limited(RateLimiter);

impl VirtioDevice for Limited {
    fn device_id(&self) -> u32 {
        4
    }

    fn features(&self) -> Features {
        Features::default()
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    fn rate_limit_timer(&self, _: usize) -> Option<RawFd> {
        self.0.timer()
    }

    fn process_queue(&mut self, index: usize, queues: &mut Queues) {
        queues.for_each_request(index, |_| self.0.admit(|| 0).then_some(0));
    }
}

/// Waits until the device has used so many requests.
fn wait_for(mock: &MockSplitQueue<GuestMemoryMmap>, done: u16) {
    let patience = Instant::now() + Duration::from_secs(60);
    while used(mock) < done {
        assert!(Instant::now() < patience, "requests stay in the queue");
        thread::yield_now();
    }
}

#[test]
fn a_queue_that_is_started_later_is_processed_at_once() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    let part = RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0));
    mock.add_desc_chains(&[part], 0).expect("a request");
    let device = Limited(RateLimiter::new(&RateLimit::default()).expect("no timer"));
    let notification = EventFd::new(0).expect("an event");
    let irq = Arc::new(IrqTrigger::unconnected().expect("an eventfd"));
    let worker = Worker::spawn(0, Box::new(device), vec![notification], memory.clone(), irq)
        .expect("a thread");
    worker.set_up(DriverSetup {
        features: Features::default(),
        queues: vec![Queue::new(16).expect("a queue")],
    });
    // A queue that is replaced before the thread takes this message would become a part of it.
    while worker.mailbox.has_message() {
        thread::yield_now();
    }
    worker.replace_queue(0, mock.create_queue().expect("a queue"));
    wait_for(&mock, 1);
}

#[test]
fn a_queue_that_waits_for_tokens_is_processed_when_there_are_some() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    for at in 0..4 {
        let part = RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0));
        mock.add_desc_chains(&[part], at).expect("a request");
    }
    let limit = RateLimit {
        bandwidth: None,
        ops: per_100ms(1),
    };
    let device = Limited(RateLimiter::new(&limit).expect("a timer"));
    let notification = EventFd::new(0).expect("an event");
    let irq = Arc::new(IrqTrigger::unconnected().expect("an eventfd"));
    let worker = Worker::spawn(0, Box::new(device), vec![notification], memory.clone(), irq)
        .expect("a thread");
    // There is no notification after this.
    worker.set_up(DriverSetup {
        features: Features::default(),
        queues: vec![mock.create_queue().expect("a queue")],
    });
    wait_for(&mock, 4);
}
