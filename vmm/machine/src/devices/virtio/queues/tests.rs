use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::*;

pub(in super::super) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory")
}

/// Rings with `queues`, with nobody at the other end of the interrupt.
pub(in super::super) fn rings(memory: &GuestMemoryMmap, queues: Vec<Queue>) -> Rings {
    let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
    let orders = Arc::new(Orders::new().expect("orders"));
    let mut rings = Rings::new(memory.clone(), interrupt, orders);
    rings.setup.queues = queues;
    rings
}

/// A queue of 16 with one request of one empty part.
fn queue(memory: &GuestMemoryMmap) -> MockSplitQueue<'_, GuestMemoryMmap> {
    let mock = MockSplitQueue::new(memory, 16);
    mock.add_desc_chains(&[RawDescriptor::from(Descriptor::new(0x8000, 0, 0, 0))], 0)
        .expect("a request");
    mock
}

#[test]
fn a_queue_that_is_refilled_for_ever_is_left_and_comes_up_again() {
    let memory = memory();
    let mock = queue(&memory);
    let mut queue: Queue = mock.create_queue().expect("a queue");
    // The mock puts this ring over the end of the other one.
    queue
        .try_set_used_ring_address(GuestAddress(0x4000))
        .expect("an address");
    let mut rings = rings(&memory, vec![queue]);
    let mut taken = 0;
    rings.each(0, |_| {
        taken += 1;
        // One more for each that is taken, as by a vCPU that does nothing else.
        let index = u16::from_le(mock.avail().idx().load());
        mock.avail().idx().store(u16::to_le(index.wrapping_add(1)));
        Some(0)
    });
    assert_eq!(taken, STRETCH);
    assert!(rings.take_unfinished(0));
    assert!(!rings.take_unfinished(0));
}

#[test]
fn a_queue_that_is_worked_off_does_not_come_up_again() {
    let memory = memory();
    let mock = queue(&memory);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_| Some(0));
    assert_eq!(u16::from_le(mock.used().idx().load()), 1);
    assert!(!rings.take_unfinished(0));
}

#[test]
fn after_a_reset_nothing_is_written_to_the_queue() {
    let memory = memory();
    let mock = queue(&memory);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let orders = Arc::clone(&rings.orders);
    rings.each(0, |_| {
        orders.set_up(Setup::default());
        Some(0)
    });
    assert_eq!(mock.used().idx().load(), 0);
    assert_eq!(rings.interrupt.pending(), 0);
    rings.each(0, |_| panic!("an order waits"));
}

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// A queue of 16 with a request of these parts: flags, and which is next.
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

/// The driver has such a request back, with nothing written.
fn is_no_request(parts: &[(u16, u16)]) {
    let memory = memory();
    let mock = chain(&memory, parts);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_| panic!("{parts:?} is no request"));
    assert_eq!(u16::from_le(mock.used().idx().load()), 1);
    let used = mock.used().ring().ref_at(0).expect("an entry").load();
    assert_eq!((used.id(), used.len()), (0, 0));
}

#[test]
fn a_chain_that_is_longer_than_its_queue_or_ends_nowhere_is_no_request() {
    is_no_request(&[(NEXT, 1), (NEXT, 0)]);
    is_no_request(&[(NEXT, 0)]);
    is_no_request(&[(NEXT, 16)]);
    is_no_request(&[(NEXT, 1), (NEXT | WRITE, u16::MAX)]);
    // As long as the queue is right.
    let memory = memory();
    let parts: Vec<_> = (1..16).map(|next| (NEXT, next)).chain([(0, 0)]).collect();
    let mock = chain(&memory, &parts);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let mut bytes = 0;
    rings.each(0, |request| {
        bytes += request.readable();
        Some(0)
    });
    assert_eq!(bytes, 16 * 16);
}

#[test]
fn a_part_to_be_read_behind_one_to_be_written_makes_it_no_request() {
    is_no_request(&[(NEXT | WRITE, 1), (0, 0)]);
    is_no_request(&[(NEXT, 1), (NEXT | WRITE, 2), (NEXT, 3), (WRITE, 0)]);
}

#[test]
fn a_request_with_a_part_outside_of_memory_goes_back_as_it_is() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    let part = RawDescriptor::from(Descriptor::new(1 << 40, 16, 0, 0));
    mock.add_desc_chains(&[part], 0).expect("a request");
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_| panic!("it is no request"));
    assert_eq!(u16::from_le(mock.used().idx().load()), 1);
}

/// What the driver does with the queue of the request under way.
fn is_the_drivers_again(take_back: impl Fn(&Orders)) {
    let memory = memory();
    let mock = chain(&memory, &[(NEXT, 1), (WRITE, 0)]);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let orders = Arc::clone(&rings.orders);
    rings.each(0, |request| {
        request.read(&mut [0; 8]).expect("it is the device's");
        request.write(&[1; 8]).expect("it is the device's");
        take_back(&orders);
        assert!(!request.goes_on() && request.is_void());
        request.read(&mut [0; 8]).expect_err("it is the driver's");
        request.write(&[2; 8]).expect_err("it is the driver's");
        Some(16)
    });
    let mut bytes = [0; 16];
    memory
        .read_slice(&mut bytes, GuestAddress(0x8000))
        .expect("memory");
    assert_eq!(bytes, [[1; 8], [0; 8]].concat()[..]);
    assert_eq!(mock.used().idx().load(), 0);
    assert_eq!(rings.interrupt.pending(), 0);
}

#[test]
fn what_is_under_way_at_a_reset_touches_nothing_of_the_drivers_any_more() {
    is_the_drivers_again(|orders| orders.set_up(Setup::default()));
    is_the_drivers_again(Orders::end);
}

#[test]
fn what_is_under_way_in_a_queue_that_is_stopped_touches_nothing_of_the_drivers_any_more() {
    is_the_drivers_again(|orders| orders.change(0, Queue::new(16).expect("a queue")));
}

#[test]
fn what_is_under_way_in_another_queue_than_the_one_that_is_stopped_is_finished() {
    let memory = memory();
    let mock = chain(&memory, &[(WRITE, 0)]);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let orders = Arc::clone(&rings.orders);
    rings.each(0, |request| {
        orders.change(1, Queue::new(16).expect("a queue"));
        assert!(request.goes_on());
        request.write(&[1; 16]).expect("it is the device's");
        Some(16)
    });
    assert_eq!(u16::from_le(mock.used().idx().load()), 1);
    assert_ne!(rings.interrupt.pending(), 0);
}

#[test]
fn an_index_that_is_further_ahead_than_the_queue_is_long_gives_nothing() {
    let memory = memory();
    let mock = queue(&memory);
    mock.avail().idx().store(u16::to_le(17));
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_| panic!("there is no such request"));
}

#[test]
fn indirect_descriptors_that_were_not_agreed_on_are_no_request() {
    // The first part, or the second, refers to a table, in which there is one part.
    is_no_request(&[(INDIRECT, 0)]);
    is_no_request(&[(INDIRECT | NEXT, 1), (0, 0)]);
    is_no_request(&[(NEXT, 1), (INDIRECT, 0)]);
}
