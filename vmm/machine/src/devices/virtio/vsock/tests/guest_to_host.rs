//! Connections that the guest requests.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixListener;

use super::super::packet::{HEADER, PacketHeader, op};
use super::harness::{GUEST_PORT, HOST_PORT, SocketPath, TestGuest, drain};

#[test]
fn the_guest_reaches_a_program_of_the_host() {
    let mut guest = TestGuest::new();
    let mut program = guest.connected();
    guest.send_data(b"to the host");
    assert_eq!(drain(&program).0, b"to the host");
    program.write_all(b"to the guest").expect("room");
    let (header, data) = guest.next().expect("data");
    assert_eq!((header.op, &data[..]), (op::DATA, &b"to the guest"[..]));
    assert_eq!((header.src_port, header.dst_port), (HOST_PORT, GUEST_PORT));
    assert_eq!(header.fwd_cnt, 11);
    assert_eq!(guest.next(), None);
}

#[test]
fn a_port_where_no_program_listens_is_refused() {
    let mut guest = TestGuest::new();
    guest.send(op::REQUEST);
    let (reset, _) = guest.next().expect("a reset");
    assert_eq!(reset.op, op::RESET);
    assert_eq!((reset.src_port, reset.dst_port), (HOST_PORT, GUEST_PORT));
    // The file of a socket at which no program listens is refused too.
    drop(guest.listen());
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_symbolic_link_in_the_place_of_a_port_is_not_followed() {
    let mut guest = TestGuest::new();
    // For instance a socket in a directory that only this process may enter.
    let elsewhere = SocketPath::new();
    let secret = UnixListener::bind(&elsewhere.0).expect("listens");
    secret.set_nonblocking(true).expect("does not wait");
    std::os::unix::fs::symlink(&elsewhere.0, guest.path.port(HOST_PORT)).expect("a link");
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    let error = secret.accept().expect_err("no connection");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_packet_in_many_parts_arrives_whole() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let header = PacketHeader {
        len: 100,
        ..guest.header(op::DATA, HOST_PORT, GUEST_PORT)
    };
    let mut bytes = header.bytes().to_vec();
    bytes.extend(0..100);
    guest.send_parts(&bytes, &[10, 34, 1, 60, 39]);
    assert_eq!(drain(&program).0, &bytes[HEADER..]);
}

#[test]
fn connections_that_end_before_their_response_is_sent_are_forgotten() {
    let mut guest = TestGuest::new();
    let listener = guest.listen();
    for _ in 0..1000 {
        guest.send(op::REQUEST);
        guest.send(op::RESET);
        drop(listener.accept());
    }
    assert!(!guest.vsock.muxer.may_have_packet());
    assert_eq!(guest.next(), None);
}
