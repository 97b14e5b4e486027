//! Packets that break the protocol, and packets that are lost.

use super::super::credit::BUFFER;
use super::super::packet::{HEADER, HOST_CID, PacketHeader, op};
use super::harness::{CID, GUEST_PORT, HOST_PORT, SENT, TestGuest, WRITE, drain, is_closed};

#[test]
fn packets_that_cannot_be_parsed_are_dropped() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let header = guest.header(op::DATA, HOST_PORT, GUEST_PORT);
    for length in [0, 1, HEADER - 1] {
        guest.send_parts(&header.bytes()[..length], &[length]);
    }
    // Parts that only the device may write, that are nowhere, or longer than there are addresses.
    guest.send_chain(&[(SENT, HEADER as u32, WRITE)]);
    guest.send_chain(&[(1 << 40, HEADER as u32, 0)]);
    guest.send_chain(&[(u64::MAX - 5, HEADER as u32, 0)]);
    guest.send_chain(&[(SENT, u32::MAX, 0), (SENT, u32::MAX, 0)]);
    // From another address.
    for src_cid in [HOST_CID, u64::from(CID) + 1, u64::from(CID) | 1 << 32] {
        guest.send_header(PacketHeader { src_cid, ..header });
    }
    assert_eq!(guest.next(), None);
    assert_eq!(drain(&program), (Vec::new(), false));
}

#[test]
fn packets_without_a_connection_are_answered_by_a_reset_except_resets() {
    let mut guest = TestGuest::new();
    let _listener = guest.listen();
    let request = guest.header(op::REQUEST, HOST_PORT, GUEST_PORT);
    let wrong = [
        PacketHeader {
            dst_cid: 9,
            ..request
        },
        PacketHeader { kind: 2, ..request },
        PacketHeader {
            dst_port: u32::MAX,
            ..request
        },
        guest.header(op::DATA, HOST_PORT, GUEST_PORT),
        guest.header(op::RESPONSE, HOST_PORT, GUEST_PORT),
        guest.header(op::SHUTDOWN, HOST_PORT, GUEST_PORT),
        guest.header(op::CREDIT_REQUEST, HOST_PORT, GUEST_PORT),
        guest.header(0, HOST_PORT, GUEST_PORT),
        guest.header(99, HOST_PORT, GUEST_PORT),
    ];
    for header in wrong {
        guest.send_header(header);
        let (reset, _) = guest.next().expect("a reset");
        // From the address to which the packet was sent, so that the guest can assign the reset.
        assert_eq!((reset.op, reset.kind), (op::RESET, header.kind));
        assert_eq!(reset.src_cid, header.dst_cid);
        assert_eq!(reset.src_port, header.dst_port);
        guest.send_header(PacketHeader {
            op: op::RESET,
            ..header
        });
        assert_eq!(guest.next(), None);
    }
}

#[test]
fn packets_that_a_connection_does_not_expect_end_it() {
    for op in [op::REQUEST, op::RESPONSE, 0, 8, u16::MAX] {
        let mut guest = TestGuest::new();
        let program = guest.connected();
        guest.send(op);
        assert_eq!(guest.next_op(), Some((op::RESET, 0)), "{op}");
        assert!(is_closed(&program), "{op}");
    }
}

#[test]
fn a_wrong_length_ends_the_connection() {
    for len in [5, BUFFER, BUFFER + 1, u32::MAX] {
        let mut guest = TestGuest::new();
        let program = guest.connected();
        let header = guest.header(op::DATA, HOST_PORT, GUEST_PORT);
        let mut bytes = PacketHeader { len, ..header }.bytes().to_vec();
        bytes.extend(b"1234");
        guest.send_parts(&bytes, &[bytes.len()]);
        assert_eq!(guest.next_op(), Some((op::RESET, 0)), "{len}");
        assert_eq!(drain(&program), (Vec::new(), true), "{len}");
    }
}

#[test]
fn the_length_of_a_packet_without_data_is_ignored() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let header = guest.header(op::CREDIT_UPDATE, HOST_PORT, GUEST_PORT);
    guest.send_header(PacketHeader {
        len: u32::MAX,
        ..header
    });
    guest.send_data(b"");
    guest.send_data(b"fine");
    assert_eq!(drain(&program).0, b"fine");
}

#[test]
fn a_connection_of_which_a_packet_is_lost_ends() {
    let mut guest = TestGuest::new();
    let program = guest.connected();
    let lost = PacketHeader {
        src_port: HOST_PORT,
        dst_port: GUEST_PORT,
        ..PacketHeader::default()
    };
    guest.vsock.muxer.on_lost_packet(&lost);
    assert!(is_closed(&program));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    // Another lost packet of the same connection changes nothing.
    guest.vsock.muxer.on_lost_packet(&lost);
    assert_eq!(guest.next_op(), None);
}
