use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::GuestAddress;

use super::super::orders::Order;
use super::*;

pub(in super::super) fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory")
}

/// Rings with `queues`, with nobody at the other end of the interrupt.
pub(in super::super) fn rings(memory: &GuestMemoryMmap, queues: Vec<Queue>) -> Rings {
    let interrupt = Arc::new(Interrupt::unconnected().expect("a line"));
    let orders = Arc::new(Orders::new().expect("orders"));
    let mut rings = Rings::new(memory.clone(), interrupt, orders);
    rings.queues = queues;
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
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let mut taken = 0;
    rings.each(0, |_, _, _| {
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
    rings.each(0, |_, _, _| Some(0));
    assert_eq!(u16::from_le(mock.used().idx().load()), 1);
    assert!(!rings.take_unfinished(0));
}

#[test]
fn after_a_reset_nothing_is_written_to_the_queue() {
    let memory = memory();
    let mock = queue(&memory);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_, orders, _| {
        orders.give(Order::Work(Vec::new()));
        Some(0)
    });
    assert_eq!(mock.used().idx().load(), 0);
    assert_eq!(rings.interrupt.pending(), 0);
    rings.each(0, |_, _, _| panic!("an order waits"));
}

#[test]
fn a_chain_that_closes_into_a_loop_ends_at_the_size_of_its_queue() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    let next = VRING_DESC_F_NEXT as u16;
    for (at, to) in [(0, 1), (1, 0)] {
        let part = RawDescriptor::from(Descriptor::new(0x8000, 8, next, to));
        mock.desc_table().store(at, part).expect("a part");
    }
    mock.avail().ring().ref_at(0).expect("an entry").store(0);
    mock.avail().idx().store(u16::to_le(1));
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    let mut parts = 0;
    rings.each(0, |_, _, chain| {
        parts += chain.count();
        Some(0)
    });
    assert_eq!(parts, 16);
}

#[test]
fn an_index_that_is_further_ahead_than_the_queue_is_long_gives_nothing() {
    let memory = memory();
    let mock = queue(&memory);
    mock.avail().idx().store(u16::to_le(17));
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    rings.each(0, |_, _, _| panic!("there is no such request"));
}

#[test]
fn indirect_descriptors_that_were_not_agreed_on_are_no_request() {
    let indirect = VRING_DESC_F_INDIRECT as u16;
    let next = VRING_DESC_F_NEXT as u16;
    // The first part, or the second, refers to a table, in which there is one part.
    let part = |flags, next| RawDescriptor::from(Descriptor::new(0x8000, 16, flags, next));
    for chain in [
        vec![part(indirect, 0)],
        vec![part(indirect | next, 1), part(0, 0)],
        vec![part(next, 1), part(indirect, 0)],
    ] {
        let memory = memory();
        let mock = MockSplitQueue::new(&memory, 16);
        for (at, part) in (0..).zip(chain) {
            mock.desc_table().store(at, part).expect("a part");
        }
        mock.avail().ring().ref_at(0).expect("an entry").store(0);
        mock.avail().idx().store(u16::to_le(1));
        let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
        rings.each(0, |_, _, _| panic!("it is no request"));
        // The driver has it back, with nothing written.
        assert_eq!(u16::from_le(mock.used().idx().load()), 1);
        let used = mock.used().ring().ref_at(0).expect("an entry").load();
        assert_eq!((used.id(), used.len()), (0, 0));
    }
}
