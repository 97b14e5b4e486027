//! Connections that a program of the host requests.

use std::io::Write;

use super::super::super::device::VirtioDevice;
use super::super::credit::BUFFER;
use super::super::packet::{HOST_CID, PacketHeader, STREAM, op};
use super::harness::{TestGuest, drain, is_closed};

#[test]
fn a_program_of_the_host_reaches_the_guest() {
    let mut guest = TestGuest::new();
    let mut program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 52));
    assert_eq!((request.src_cid, request.kind), (HOST_CID, STREAM));
    assert_eq!(request.buf_alloc, BUFFER);
    assert_eq!(drain(&program), (Vec::new(), false));
    let port = request.src_port;
    guest.send_header(guest.header(op::RESPONSE, port, 52));
    assert_eq!(drain(&program).0, format!("OK {port}\n").as_bytes());

    program.write_all(b"to the guest").expect("room");
    assert_eq!(guest.next().expect("data").1, b"to the guest");
    let mut bytes = PacketHeader {
        len: 11,
        ..guest.header(op::DATA, port, 52)
    }
    .bytes()
    .to_vec();
    bytes.extend(b"to the host");
    guest.send_parts(&bytes, &[bytes.len()]);
    assert_eq!(drain(&program).0, b"to the host");
}

#[test]
fn what_a_program_sends_before_the_guest_accepts_is_kept() {
    let mut guest = TestGuest::new();
    let program = guest.program(b"connect 52\nhello");
    let (request, _) = guest.next().expect("a request");
    assert_eq!(guest.next(), None);
    guest.send_header(guest.header(op::RESPONSE, request.src_port, 52));
    assert_eq!(guest.next().expect("data").1, b"hello");
    assert!(!is_closed(&program));
}

#[test]
fn a_port_that_the_guest_refuses_closes_the_programs_socket() {
    let mut guest = TestGuest::new();
    let program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    guest.send_header(guest.header(op::RESET, request.src_port, 52));
    assert_eq!(drain(&program), (Vec::new(), true));
    assert_eq!(guest.next(), None);
}

#[test]
fn a_program_that_closes_before_the_guest_accepts_is_forgotten() {
    let mut guest = TestGuest::new();
    let program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    drop(program);
    let (reset, _) = guest.next().expect("a reset");
    assert_eq!((reset.op, reset.src_port), (op::RESET, request.src_port));
    // The guest has sent its response before it got the reset.
    guest.send_header(guest.header(op::RESPONSE, request.src_port, 52));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));

    // The guest gets nothing of a program whose request has not found a buffer.
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.on_host_event(&mut guest.queues);
    drop(program);
    assert_eq!(guest.next(), None);
}

#[test]
fn a_response_to_a_request_that_was_not_sent_is_an_error() {
    let mut guest = TestGuest::new();
    // The guest has no buffer available, so it has not got the request.
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.on_host_event(&mut guest.queues);
    guest.send_header(guest.header(op::RESPONSE, 1 << 30, 52));
    assert_eq!(drain(&program), (Vec::new(), true));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    assert_eq!(guest.next(), None);
}

#[test]
fn commands_that_name_no_port_close_the_programs_socket() {
    for command in [
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT 4294967296\n",
        "CONNECT 1 2\n",
        "GET / HTTP/1.1\n",
        "\n",
        "CONNECT 0000000000000000000000000052\n",
    ] {
        let mut guest = TestGuest::new();
        let program = guest.program(command.as_bytes());
        assert_eq!(guest.next(), None, "{command}");
        assert!(is_closed(&program), "{command}");
    }
    let mut guest = TestGuest::new();
    let program = guest.program(b"\xff\xfe\n");
    assert_eq!(guest.next(), None);
    assert!(is_closed(&program));
}

#[test]
fn a_command_may_arrive_in_pieces() {
    let mut guest = TestGuest::new();
    let mut program = guest.program(b"CONN");
    assert_eq!(guest.next(), None);
    program.write_all(b"ECT 52").expect("room");
    assert_eq!(guest.next(), None);
    program.write_all(b"\n").expect("room");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}

#[test]
fn without_a_driver_programs_are_not_kept_waiting() {
    let mut guest = TestGuest::new();
    guest.queues.setup.queues.clear();
    guest.vsock.on_restart(&guest.queues);
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.on_host_event(&mut guest.queues);
    assert!(is_closed(&program));
}
