use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::super::test_support::{memory, queues_of, used};
use super::*;

/// A queue of 16 with one request of one empty part.
fn queue(memory: &GuestMemoryMmap) -> MockSplitQueue<'_, GuestMemoryMmap> {
    let mock = MockSplitQueue::new(memory, 16);
    mock.add_desc_chains(&[RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0))], 0)
        .expect("a request");
    mock
}

#[test]
fn a_queue_that_is_refilled_for_ever_is_interrupted_and_resumed() {
    let memory = memory();
    let mock = queue(&memory);
    let mut queue: Queue = mock.create_queue().expect("a queue");
    // The mock queue places the used ring over the end of the available ring.
    queue
        .try_set_used_ring_address(GuestAddress(0x4000))
        .expect("an address");
    let mut queues = queues_of(&memory, vec![queue]);
    let mut taken = 0;
    queues.for_each_request(0, |_| {
        taken += 1;
        // One more request for each that is taken, as by a vCPU that does nothing else.
        let index = u16::from_le(mock.avail().idx().load());
        mock.avail().idx().store(u16::to_le(index.wrapping_add(1)));
        Some(0)
    });
    assert_eq!(taken, BATCH);
    assert!(queues.take_unfinished(0));
    assert!(!queues.take_unfinished(0));
}

#[test]
fn a_queue_that_is_empty_is_not_resumed() {
    let memory = memory();
    let mock = queue(&memory);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    queues.for_each_request(0, |_| Some(0));
    assert_eq!(used(&mock), 1);
    assert!(!queues.take_unfinished(0));
}

#[test]
fn after_a_reset_nothing_is_written_to_the_queue() {
    let memory = memory();
    let mock = queue(&memory);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    let mailbox = Arc::clone(&queues.mailbox);
    queues.for_each_request(0, |_| {
        mailbox.set_up(DriverSetup::default());
        Some(0)
    });
    assert_eq!(used(&mock), 0);
    assert_eq!(queues.irq.pending(), 0);
    queues.for_each_request(0, |_| panic!("there is a message"));
}

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// A queue of 16 with a request of these descriptors: flags, and which is next.
fn chain<'a>(
    memory: &'a GuestMemoryMmap,
    parts: &[(u16, u16)],
) -> MockSplitQueue<'a, GuestMemoryMmap> {
    let mock = MockSplitQueue::new(memory, 16);
    for (at, (flags, next)) in (0..).zip(parts) {
        let part = RawDescriptor::from(Descriptor::new(0x8000, 16, *flags, *next));
        mock.desc_table().store(at, part).expect("a part");
    }
    mock.avail().ring().ref_at(0).expect("an entry").store(0);
    mock.avail().idx().store(u16::to_le(1));
    mock
}

/// A chain of these descriptors is returned to the driver with nothing written.
fn is_no_request(parts: &[(u16, u16)]) {
    let memory = memory();
    let mock = chain(&memory, parts);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    queues.for_each_request(0, |_| panic!("{parts:?} is no request"));
    assert_eq!(used(&mock), 1);
    let used = mock.used().ring().ref_at(0).expect("an entry").load();
    assert_eq!((used.id(), used.len()), (0, 0));
}

#[test]
fn a_chain_that_is_longer_than_its_queue_or_ends_nowhere_is_no_request() {
    is_no_request(&[(NEXT, 1), (NEXT, 0)]);
    is_no_request(&[(NEXT, 0)]);
    is_no_request(&[(NEXT, 16)]);
    is_no_request(&[(NEXT, 1), (NEXT | WRITE, u16::MAX)]);
    // A chain that is as long as the queue is valid.
    let memory = memory();
    let parts: Vec<_> = (1..16).map(|next| (NEXT, next)).chain([(0, 0)]).collect();
    let mock = chain(&memory, &parts);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    let mut bytes = 0;
    queues.for_each_request(0, |request| {
        bytes += request.readable();
        Some(0)
    });
    assert_eq!(bytes, 16 * 16);
}

#[test]
fn a_chain_in_which_the_device_reads_after_it_writes_is_no_request() {
    is_no_request(&[(NEXT | WRITE, 1), (0, 0)]);
    is_no_request(&[(NEXT, 1), (NEXT | WRITE, 2), (NEXT, 3), (WRITE, 0)]);
}

#[test]
fn a_request_with_a_part_outside_of_memory_is_returned_with_nothing_written() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    let part = RawDescriptor::from(Descriptor::new(1 << 40, 16, 0, 0));
    mock.add_desc_chains(&[part], 0).expect("a request");
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    queues.for_each_request(0, |_| panic!("it is no request"));
    assert_eq!(used(&mock), 1);
}

/// After `take_back`, the request in progress touches no memory, and its queue is not used.
fn belongs_to_the_driver_after(take_back: impl Fn(&Mailbox)) {
    let memory = memory();
    let mock = chain(&memory, &[(NEXT, 1), (WRITE, 0)]);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    let mailbox = Arc::clone(&queues.mailbox);
    queues.for_each_request(0, |request| {
        request.read(&mut [0; 8]).expect("the device has access");
        request.write(&[1; 8]).expect("the device has access");
        take_back(&mailbox);
        assert!(!request.may_continue() && request.is_void());
        request
            .read(&mut [0; 8])
            .expect_err("the driver has it back");
        request.write(&[2; 8]).expect_err("the driver has it back");
        Some(16)
    });
    let mut bytes = [0; 16];
    memory
        .read_slice(&mut bytes, GuestAddress(0x8000))
        .expect("memory");
    assert_eq!(bytes, [[1; 8], [0; 8]].concat()[..]);
    assert_eq!(used(&mock), 0);
    assert_eq!(queues.irq.pending(), 0);
}

#[test]
fn a_request_in_progress_at_a_reset_touches_no_memory_any_more() {
    belongs_to_the_driver_after(|mailbox| mailbox.set_up(DriverSetup::default()));
    belongs_to_the_driver_after(Mailbox::end);
}

#[test]
fn a_request_in_progress_in_a_queue_that_is_stopped_touches_no_memory_any_more() {
    belongs_to_the_driver_after(|mailbox| {
        mailbox.replace_queue(0, Queue::new(16).expect("a queue"))
    });
}

#[test]
fn a_request_in_progress_is_finished_if_another_queue_is_stopped() {
    let memory = memory();
    let mock = chain(&memory, &[(WRITE, 0)]);
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    let mailbox = Arc::clone(&queues.mailbox);
    queues.for_each_request(0, |request| {
        mailbox.replace_queue(1, Queue::new(16).expect("a queue"));
        assert!(request.may_continue());
        request.write(&[1; 16]).expect("the device has access");
        Some(16)
    });
    assert_eq!(used(&mock), 1);
    assert_ne!(queues.irq.pending(), 0);
}

#[test]
fn an_available_index_beyond_the_size_of_the_queue_makes_no_request_available() {
    let memory = memory();
    let mock = queue(&memory);
    mock.avail().idx().store(u16::to_le(17));
    let mut queues = queues_of(&memory, vec![mock.create_queue().expect("a queue")]);
    queues.for_each_request(0, |_| panic!("there is no such request"));
}

#[test]
fn indirect_descriptors_that_were_not_negotiated_are_no_request() {
    // The first descriptor, or the second, refers to a table, in which there is one descriptor.
    is_no_request(&[(INDIRECT, 0)]);
    is_no_request(&[(INDIRECT | NEXT, 1), (0, 0)]);
    is_no_request(&[(NEXT, 1), (INDIRECT, 0)]);
}
