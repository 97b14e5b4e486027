//! Room on both sides: credit and the buffers of the guest's queue.

use std::io::Write;

use super::super::super::device::VirtioDevice;
use super::super::credit::BUFFER;
use super::super::device::RX_QUEUE;
use super::super::packet::{HEADER, op};
use super::harness::{RECEIVED, TestGuest, WRITE, drain, is_closed};

#[test]
fn the_guest_gets_no_more_than_it_has_room_for_and_the_rest_later() {
    let mut guest = TestGuest::new();
    guest.buf_alloc = 1000;
    let mut program = guest.connected();
    let all: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    program.write_all(&all).expect("room");
    let mut got = guest.next().expect("data").1;
    assert_eq!(got.len(), 1000);
    assert_eq!(guest.next_op(), Some((op::CREDIT_REQUEST, 0)));
    // The guest is requested once. Neither it nor the thread is woken again.
    assert_eq!(guest.next(), None);
    assert!(!guest.has_host_event());
    guest.send(op::CREDIT_UPDATE);
    assert_eq!(guest.next(), None);
    while got.len() < all.len() {
        guest.fwd_cnt = got.len() as u32;
        guest.send(op::CREDIT_UPDATE);
        match guest.received().or_else(|| guest.next()) {
            Some((header, data)) if header.op == op::DATA => got.extend(data),
            other => assert_eq!(other.expect("a packet").0.op, op::CREDIT_REQUEST),
        }
    }
    assert!(got == all);
}

#[test]
fn a_guest_without_buffers_gets_its_data_when_it_gives_some() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    // The buffer that is available now is used for the first packet.
    assert_eq!(guest.next(), None);
    program.write_all(b"first").expect("room");
    guest.vsock.on_host_event(&mut guest.queues);
    program.write_all(b"second").expect("room");
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(!guest.has_host_event());
    assert_eq!(guest.received().expect("data").1, b"first");
    guest.offer_buffer(4096);
    guest.vsock.process_queue(RX_QUEUE, &mut guest.queues);
    assert_eq!(guest.received().expect("data").1, b"second");
}

#[test]
fn buffers_that_are_too_short_or_nowhere_are_returned_and_lose_nothing() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    program.write_all(b"data").expect("room");
    for (at, length, flags) in [
        (RECEIVED, HEADER as u32, WRITE),
        (RECEIVED, 0, WRITE),
        (1 << 40, 4096, WRITE),
        (RECEIVED, 4096, 0),
    ] {
        guest.rx.give(&guest.memory, &[(at, length, flags)]);
        guest.vsock.on_host_event(&mut guest.queues);
        assert_eq!(guest.rx.used(&guest.memory), Some(0));
    }
    guest.offer_buffer(HEADER as u32 + 1);
    guest.vsock.process_queue(RX_QUEUE, &mut guest.queues);
    assert_eq!(guest.received().expect("data").1, b"d");
    assert_eq!(guest.next().expect("data").1, b"ata");
}

#[test]
fn a_guest_that_keeps_to_its_credit_gets_everything_across() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let all: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let (mut sent, mut taken, mut got) = (0, 0, Vec::new());
    while got.len() < all.len() {
        let room = BUFFER as usize - (sent - taken);
        let piece = room.min(all.len() - sent).min(50_000);
        if piece > 0 {
            guest.send_data(&all[sent..sent + piece]);
            sent += piece;
        } else {
            got.extend(drain(&program).0);
        }
        while let Some((header, _)) = guest.next() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            taken = header.fwd_cnt as usize;
        }
    }
    assert!(got == all);
}

#[test]
fn a_guest_that_requests_credit_gets_a_report() {
    let mut guest = TestGuest::new();
    let _program = guest.connected();
    guest.send_data(b"1234");
    assert_eq!(guest.next(), None);
    guest.send(op::CREDIT_REQUEST);
    let (update, _) = guest.next().expect("a report");
    assert_eq!((update.op, update.fwd_cnt), (op::CREDIT_UPDATE, 4));
    assert_eq!(update.buf_alloc, BUFFER);
    assert_eq!(guest.next(), None);
}

#[test]
fn a_guest_that_sends_beyond_its_credit_loses_the_connection_and_no_more_is_buffered() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let piece = vec![1; BUFFER as usize];
    // What the Unix socket accepts, what is buffered, and one piece too many.
    let mut sent = 0;
    loop {
        guest.send_data(&piece);
        match guest.next_op() {
            Some((op::RESET, _)) => break,
            other => assert!(matches!(other, None | Some((op::CREDIT_UPDATE, _)))),
        }
        sent += piece.len();
    }
    let (got, closed) = drain(&program);
    assert!(closed && got.len() < sent && got.len() + BUFFER as usize >= sent);
}

#[test]
fn no_report_of_a_guest_about_its_buffer_does_harm() {
    for (buf_alloc, fwd_cnt) in [(u32::MAX, u32::MAX), (0, 1 << 31), (1, 0), (u32::MAX, 5)] {
        let mut guest = TestGuest::new();
        guest.buf_alloc = buf_alloc;
        guest.fwd_cnt = fwd_cnt;
        let mut program = guest.connected();
        program.write_all(&[1; 3000]).expect("room");
        for _ in 0..4 {
            guest.next();
            guest.send(op::CREDIT_UPDATE);
        }
        assert!(!guest.has_host_event());
        assert!(!is_closed(&program));
    }
}
