//! Requests under a rate limit.

use baton_config::rate::RateLimit;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::super::device::VirtioDevice;
use super::super::super::test_support::{TestClock, memory, per_100ms, queues_of, used};
use super::harness::{DATA, HEADER, Image, NEXT, OK, STATUS, WRITE, with_driver};

/// Descriptors of one request.
const DESCRIPTORS: u16 = 3;

/// A queue of `count` reads of sector 0, each `length` bytes.
fn reads(memory: &GuestMemoryMmap, count: u16, length: u32) -> MockSplitQueue<'_, GuestMemoryMmap> {
    memory
        .write_slice(&[0; 16], GuestAddress(HEADER))
        .expect("a header: read from sector 0");
    let mock = MockSplitQueue::new(memory, 32);
    for at in (0..count).map(|n| n * DESCRIPTORS) {
        let parts = [
            Descriptor::new(HEADER, 16, NEXT, at + 1),
            Descriptor::new(DATA, length, NEXT | WRITE, at + 2),
            Descriptor::new(STATUS, 1, WRITE, 0),
        ];
        mock.add_desc_chains(&parts.map(RawDescriptor::from), at)
            .expect("a request");
    }
    mock
}

#[test]
fn requests_without_tokens_stay_in_the_queue_until_there_are_some() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let clock = TestClock::default();
    block.limiter = clock.rate_limiter(RateLimit {
        bandwidth: per_100ms(1024),
        ops: per_100ms(100),
    });
    let memory = memory();
    let mock = reads(&memory, 5, 512);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 2), (0, 2), (49, 2), (1, 3), (1000, 5)] {
        clock.pass_ms(ms);
        block.process_queue(0, &mut queues);
        assert_eq!(used(&mock), requests, "{ms} ms later");
    }
    assert_eq!(
        memory.read_obj::<u8>(GuestAddress(STATUS)).expect("status"),
        OK
    );
}

#[test]
fn each_operation_counts_as_one_whatever_its_size() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let clock = TestClock::default();
    block.limiter = clock.rate_limiter(RateLimit {
        bandwidth: None,
        ops: per_100ms(2),
    });
    let memory = memory();
    let mock = reads(&memory, 5, 2048);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 2), (50, 3), (100, 5)] {
        clock.pass_ms(ms);
        block.process_queue(0, &mut queues);
        assert_eq!(used(&mock), requests, "{ms} ms later");
    }
}

#[test]
fn a_request_larger_than_the_bucket_is_served_and_the_next_one_waits_for_its_debt() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let clock = TestClock::default();
    block.limiter = clock.rate_limiter(RateLimit {
        bandwidth: per_100ms(1024),
        ops: None,
    });
    let memory = memory();
    let mock = reads(&memory, 2, 2048);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 1), (199, 1), (1, 2)] {
        clock.pass_ms(ms);
        block.process_queue(0, &mut queues);
        assert_eq!(used(&mock), requests, "{ms} ms later");
    }
}
