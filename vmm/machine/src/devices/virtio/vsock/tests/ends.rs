//! How connections end, in one direction or both.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use super::super::super::device::VirtioDevice;
use super::super::credit::BUFFER;
use super::super::packet::{ShutdownFlags, op};
use super::harness::{TestGuest, drain, is_closed};

#[test]
fn a_guest_that_sends_no_more_still_receives() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    guest.send_data(b"last");
    guest.shut_down(ShutdownFlags::NO_SEND);
    assert_eq!(drain(&program), (b"last".to_vec(), true));
    program.write_all(b"answer").expect("room");
    assert_eq!(guest.next().expect("data").1, b"answer");
    // Data that the guest sends nevertheless is an error.
    guest.send_data(b"more");
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_guest_that_receives_no_more_still_sends() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    guest.shut_down(ShutdownFlags::NO_RECEIVE);
    let error = program.write(b"x").expect_err("the guest does not read");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.send_data(b"still here");
    assert_eq!(drain(&program), (b"still here".to_vec(), false));
    assert_eq!(guest.next(), None);
}

#[test]
fn a_program_that_sends_no_more_still_receives() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    program.write_all(b"last").expect("room");
    program.shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(guest.next().expect("data").1, b"last");
    assert_eq!(
        guest.next_op(),
        Some((op::SHUTDOWN, ShutdownFlags::NO_SEND.bits()))
    );
    assert_eq!(guest.next(), None);
    guest.send_data(b"answer");
    guest.shut_down(ShutdownFlags::BOTH);
    assert_eq!(drain(&program), (b"answer".to_vec(), true));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_program_that_receives_no_more_still_sends() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    program.shutdown(Shutdown::Read).expect("a socket");
    // This is found out when the device writes. What the guest sends after that is lost.
    for _ in 0..4 {
        guest.send_data(&[1; BUFFER as usize]);
        while let Some((op, flags)) = guest.next_op() {
            assert!(
                op == op::CREDIT_UPDATE
                    || (op, flags) == (op::SHUTDOWN, ShutdownFlags::NO_RECEIVE.bits())
            );
        }
    }
    program.write_all(b"still here").expect("room");
    assert_eq!(guest.next().expect("data").1, b"still here");
}

#[test]
fn the_guest_gets_all_bytes_of_a_program_that_has_closed_and_ends_the_connection() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    program.write_all(&[7; 6000]).expect("room");
    drop(program);
    let mut got = 0;
    while let Some((header, data)) = guest.next() {
        got += data.len();
        if header.op == op::SHUTDOWN {
            assert_eq!(header.flags, ShutdownFlags::BOTH.bits());
            break;
        }
    }
    assert_eq!(got, 6000);
    guest.send(op::RESET);
    assert_eq!(guest.next(), None);
    guest.send(op::DATA);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_guest_that_closes_need_not_wait_and_the_program_reads_everything() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let sent = guest.overfill_socket(0);
    guest.shut_down(ShutdownFlags::BOTH);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    // The ports are in use until the program has read everything.
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    let (mut got, mut closed) = (0, false);
    while !closed {
        let (piece, end) = drain(&program);
        got += piece.len();
        closed = end;
        assert_eq!(guest.next(), None);
    }
    assert_eq!(got, sent);
    assert_eq!(guest.next(), None);
}

#[test]
fn after_a_reset_by_the_driver_all_connections_are_closed() {
    let mut guest = TestGuest::new();
    let open = guest.connected();
    let requested = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
    guest.send_header(guest.header(op::DATA, 9, 9));
    // The driver has started the device again before the thread has handled the reset.
    guest.vsock.on_restart(&guest.queues);
    assert!(is_closed(&open) && is_closed(&requested));
    assert_eq!(guest.next(), None);
    let _program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}
