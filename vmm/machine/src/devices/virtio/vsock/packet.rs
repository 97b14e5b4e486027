//! The header in front of each packet.
//!
//! The driver may lay a packet out in parts of any sizes (VIRTIO 1.2, 2.7.4), and Linux does so for
//! data that it sends without a copy. The crate virtio-vsock takes the data in one part only, so the
//! header is read from the chain as a stream of bytes.
//!
//! Source: VIRTIO 1.2, 5.10.6.

use std::array;

/// Length of a header, bytes.
pub(super) const HEADER: usize = 44;
/// The host's address.
pub(super) const HOST: u64 = 2;
/// A stream of bytes, the only type of socket that we offer.
pub(super) const STREAM: u16 = 1;
/// The sender will not receive any more: a bit of a shutdown's flags.
pub(super) const NO_RECEIVE: u32 = 1;
/// The sender will not send any more: the other bit.
pub(super) const NO_SEND: u32 = 2;
/// Both.
pub(super) const NEITHER: u32 = NO_RECEIVE | NO_SEND;

/// What a packet is for.
pub(super) mod op {
    /// Asks for a connection.
    pub(in super::super) const REQUEST: u16 = 1;
    /// Agrees to one.
    pub(in super::super) const RESPONSE: u16 = 2;
    /// Ends one, or refuses it.
    pub(in super::super) const RESET: u16 = 3;
    /// Announces that one direction ends, or both.
    pub(in super::super) const SHUTDOWN: u16 = 4;
    /// Data.
    pub(in super::super) const DATA: u16 = 5;
    /// Tells how much has been taken.
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    /// Wants to be told.
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of data behind it.
    pub(super) len: u32,
    /// Type of socket.
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes that the sender keeps for this connection.
    pub(super) buf_alloc: u32,
    /// Bytes that have left the sender's buffer since the connection began, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let long = |at: usize| u64::from_le_bytes(array::from_fn(|byte| bytes[at + byte]));
        let word = |at: usize| u32::from_le_bytes(array::from_fn(|byte| bytes[at + byte]));
        let half = |at: usize| u16::from_le_bytes(array::from_fn(|byte| bytes[at + byte]));
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        for (at, word) in [
            (16, self.src_port),
            (20, self.dst_port),
            (24, self.len),
            (32, self.flags),
            (36, self.buf_alloc),
            (40, self.fwd_cnt),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
