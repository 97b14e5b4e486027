use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use baton_config::rate::RateLimit;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::test_support::{TestClock, memory, per_100ms, queues_of, used};
use super::*;

const WRITE: u16 = 2;
const BUFFER: u64 = 0x8000;

fn unlimited() -> RateLimiter {
    RateLimiter::new(&RateLimit::default()).expect("needs no timer")
}

/// An interface, and the socket at the other end of its tap. Like a tap, a pair of datagram sockets keeps
/// frames apart.
fn pair() -> (Net, UnixDatagram) {
    let (here, there) = UnixDatagram::pair().expect("sockets");
    for end in [&here, &there] {
        end.set_nonblocking(true).expect("does not wait");
    }
    let net = Net {
        tap: File::from(OwnedFd::from(here)),
        mac: None,
        rx_frame: vec![0; MAX_FRAME],
        tx_frame: vec![0; MAX_FRAME],
        rx_limiter: unlimited(),
        tx_limiter: unlimited(),
    };
    (net, there)
}

/// A queue with one request of `length` bytes at [`BUFFER`].
fn queue(memory: &GuestMemoryMmap, length: u32, flags: u16) -> MockSplitQueue<'_, GuestMemoryMmap> {
    let mock = MockSplitQueue::new(memory, 16);
    let part = RawDescriptor::from(Descriptor::new(BUFFER, length, flags, 0));
    mock.add_desc_chains(&[part], 0).expect("a request");
    mock
}

/// A queue with `count` requests of that kind.
fn frames(
    memory: &GuestMemoryMmap,
    count: u16,
    length: u32,
    flags: u16,
) -> MockSplitQueue<'_, GuestMemoryMmap> {
    let mock = MockSplitQueue::new(memory, 16);
    let part = RawDescriptor::from(Descriptor::new(BUFFER, length, flags, 0));
    for at in 0..count {
        mock.add_desc_chains(&[part], at).expect("a request");
    }
    mock
}

#[test]
fn offloads_that_were_not_negotiated_do_not_reach_the_host() {
    let (mut net, wire) = pair();
    let memory = memory();
    let mock = queue(&memory, 20, 0);
    memory
        .write_slice(&[0xff; 20], GuestAddress(BUFFER))
        .expect("a frame");
    let queue = mock.create_queue().expect("a queue");
    let mut queues = queues_of(&memory, vec![unused_queue(), queue]);
    net.process_queue(TX_QUEUE, &mut queues);
    let mut frame = [1; 64];
    assert_eq!(wire.recv(&mut frame).expect("a frame"), 20);
    assert_eq!((&frame[..HEADER], frame[HEADER]), (&[0; HEADER][..], 0xff));
}

/// A queue that the driver does not use.
fn unused_queue() -> virtio_queue::Queue {
    virtio_queue::QueueT::new(16).expect("a queue")
}

#[test]
fn frames_that_are_too_short_or_too_long_are_lost_and_their_buffers_come_back() {
    for length in [0, 1, HEADER as u32 - 1, MAX_FRAME as u32 + 1] {
        let (mut net, wire) = pair();
        let memory = memory();
        let mock = queue(&memory, length, 0);
        let queue = mock.create_queue().expect("a queue");
        let mut queues = queues_of(&memory, vec![unused_queue(), queue]);
        net.process_queue(TX_QUEUE, &mut queues);
        assert!(wire.recv(&mut [0; 64]).is_err(), "{length}");
        assert_eq!(used(&mock), 1, "{length}");
    }
}

#[test]
fn a_frame_that_does_not_fit_is_lost_and_no_part_of_it_is_written() {
    let (mut net, wire) = pair();
    let memory = memory();
    let mock = queue(&memory, 20, WRITE);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    wire.send(&[7; 21]).expect("a frame");
    net.on_host_event(&mut queues);
    assert_eq!(used(&mock), 1);
    let first: u8 = memory.read_obj(GuestAddress(BUFFER)).expect("memory");
    assert_eq!(first, 0);
}

#[test]
fn without_a_tap_the_buffers_stay_with_the_driver() {
    let (mut net, wire) = pair();
    drop(wire);
    let memory = memory();
    let mock = queue(&memory, 64, WRITE);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    net.on_host_event(&mut queues);
    assert_eq!(used(&mock), 0);
}

#[test]
fn frames_of_the_guest_without_tokens_stay_in_its_queue_until_there_are_some() {
    let (mut net, wire) = pair();
    let clock = TestClock::default();
    net.tx_limiter = clock.rate_limiter(RateLimit {
        bandwidth: per_100ms(100),
        ops: None,
    });
    let memory = memory();
    let mock = frames(&memory, 3, HEADER as u32 + 50, 0);
    let queue = mock.create_queue().expect("a queue");
    let mut queues = queues_of(&memory, vec![unused_queue(), queue]);
    let mut sent = 0;
    for (ms, frames) in [(0, 2), (49, 2), (1, 3)] {
        clock.pass_ms(ms);
        net.process_queue(TX_QUEUE, &mut queues);
        sent += std::iter::from_fn(|| wire.recv(&mut [0; 128]).ok()).count();
        assert_eq!((sent, used(&mock)), (frames, frames as u16));
    }
}

#[test]
fn frames_for_the_guest_without_tokens_stay_in_the_tap_until_there_are_some() {
    let (mut net, wire) = pair();
    let clock = TestClock::default();
    net.rx_limiter = clock.rate_limiter(RateLimit {
        bandwidth: per_100ms(100),
        ops: None,
    });
    let memory = memory();
    let mock = frames(&memory, 4, 200, WRITE);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    for _ in 0..4 {
        wire.send(&[7; HEADER + 60]).expect("a frame");
    }
    net.on_host_event(&mut queues);
    // Two: the second has used more tokens than there were.
    for (ms, frames) in [(0, 2), (20, 2), (1, 3), (60, 4)] {
        clock.pass_ms(ms);
        net.process_queue(RX_QUEUE, &mut queues);
        assert_eq!(used(&mock), frames, "{ms} ms later");
    }
}

#[test]
fn a_limit_for_one_direction_does_not_affect_the_other() {
    let (mut net, wire) = pair();
    let clock = TestClock::default();
    net.rx_limiter = clock.rate_limiter(RateLimit {
        bandwidth: None,
        ops: per_100ms(1),
    });
    let memory = memory();
    let mock = frames(&memory, 5, HEADER as u32 + 50, 0);
    let queue = mock.create_queue().expect("a queue");
    let mut queues = queues_of(&memory, vec![unused_queue(), queue]);
    net.process_queue(TX_QUEUE, &mut queues);
    assert_eq!(
        std::iter::from_fn(|| wire.recv(&mut [0; 128]).ok()).count(),
        5
    );
    assert!(net.rate_limit_timer(RX_QUEUE).is_some() && net.rate_limit_timer(TX_QUEUE).is_none());
}
