//! Bounds of connections, pending connections and resets.

use super::super::super::device::VirtioDevice;
use super::super::bounds::{MAX_CONNECTIONS, MAX_PENDING, VsockBounds};
use super::super::packet::op;
use super::super::resets::MAX_RESETS;
use super::harness::{HOST_PORT, TestGuest, is_closed};

#[test]
fn programs_that_send_nothing_make_room_for_others() {
    let mut guest = TestGuest::new();
    let silent: Vec<_> = (0..=MAX_PENDING).map(|_| guest.program(b"")).collect();
    // They are accepted in two batches, and the second is not forgotten.
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(guest.has_host_event());
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(!guest.has_host_event());
    assert!(is_closed(&silent[0]));
    assert!(silent[1..].iter().all(|program| !is_closed(program)));
    let _program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}

#[test]
fn a_guest_whose_share_of_files_is_small_has_fewer_sockets() {
    let bounds = VsockBounds::of_sockets(8);
    assert_eq!(bounds.sockets(), 8);
    let mut guest = TestGuest::with(bounds);
    let silent: Vec<_> = (0..=bounds.pending).map(|_| guest.program(b"")).collect();
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(is_closed(&silent[0]) && !is_closed(&silent[1]));
    drop(silent);
    let listener = guest.listen();
    for port in 0..=bounds.connections as u32 {
        guest.send_header(guest.header(op::REQUEST, HOST_PORT, port));
        let expected = match (port as usize) < bounds.connections {
            true => op::RESPONSE,
            false => op::RESET,
        };
        assert_eq!(guest.next_op(), Some((expected, 0)));
        guest.vsock.muxer.assert_bounds();
    }
    assert_eq!((0..9).filter(|_| listener.accept().is_ok()).count(), 7);
}

#[test]
fn connections_have_a_bound_for_both_sides() {
    let mut guest = TestGuest::new();
    let listener = guest.listen();
    let programs: Vec<_> = (0..MAX_CONNECTIONS as u32)
        .map(|port| {
            guest.send_header(guest.header(op::REQUEST, HOST_PORT, port));
            assert_eq!(guest.next_op(), Some((op::RESPONSE, 0)));
            listener.accept().expect("a connection").0
        })
        .collect();
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    assert!(listener.accept().is_err());
    let program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next(), None);
    assert!(is_closed(&program));

    // When one connection ends, there is room for one.
    drop(programs);
    guest.send_header(guest.header(op::RESET, HOST_PORT, 0));
    let _program = guest.program(b"CONNECT 52\n");
    let mut requests = 0;
    while let Some((op, _)) = guest.next_op() {
        requests += u32::from(op == op::REQUEST);
    }
    assert_eq!(requests, 1);
}

#[test]
fn resets_that_wait_for_a_buffer_have_a_bound() {
    let mut guest = TestGuest::new();
    for _ in 0..2 * MAX_RESETS {
        guest.send(op::DATA);
    }
    let mut resets = 0;
    while let Some(packet) = guest.next_op() {
        assert_eq!(packet, (op::RESET, 0));
        resets += 1;
    }
    assert_eq!(resets, MAX_RESETS);
}
