//! The header of each packet, and what its fields mean.
//!
//! The driver may divide a packet into parts of any sizes (VIRTIO 1.2, 2.7.4), and Linux does so for data that
//! it sends without copying. The crate virtio-vsock accepts the data in one part only, so the header is read
//! from the chain as a stream of bytes.
//!
//! Source: VIRTIO 1.2, 5.10.6.

use std::array;

/// Length of a header, bytes.
pub(super) const HEADER: usize = 44;
/// The host's address.
pub(super) const HOST_CID: u64 = 2;
/// The type of socket that transports a stream of bytes, the only type here.
pub(super) const STREAM: u16 = 1;
/// The number that stands for any port (`VMADDR_PORT_ANY`), so that no socket has it.
pub(super) const ANY_PORT: u32 = u32::MAX;

/// The operations of packets.
pub(super) mod op {
    /// Requests a connection.
    pub(crate) const REQUEST: u16 = 1;
    /// Accepts a connection.
    pub(crate) const RESPONSE: u16 = 2;
    /// Ends or refuses a connection.
    pub(crate) const RESET: u16 = 3;
    /// Announces that the sender ends one direction or both.
    pub(crate) const SHUTDOWN: u16 = 4;
    /// Has data.
    pub(crate) const DATA: u16 = 5;
    /// Reports how much has left the sender's buffer.
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    /// Requests such a report.
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// Which directions of a connection one side has ended: the flags of a shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShutdownFlags(u32);

impl ShutdownFlags {
    /// The sender will no longer receive.
    pub(super) const NO_RECEIVE: Self = Self(1);
    /// The sender will no longer send.
    pub(super) const NO_SEND: Self = Self(2);
    /// The sender will neither receive nor send any longer.
    pub(super) const BOTH: Self = Self(3);

    /// The flags in a header that the guest has sent; unknown bits are ignored.
    pub(super) fn from_guest(flags: u32) -> Self {
        Self(flags & Self::BOTH.0)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn insert(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    pub(super) fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Identifies a connection of a guest: the ports at its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionKey {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketHeader {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of data behind the header.
    pub(super) len: u32,
    /// Type of socket.
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Size of the sender's buffer for this connection, bytes.
    pub(super) buf_alloc: u32,
    /// Bytes that have left the sender's buffer since the connection began, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl PacketHeader {
    /// A header from the host to the guest `cid` on the connection `key`.
    pub(super) fn to_guest(cid: u64, key: ConnectionKey) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            kind: STREAM,
            ..Self::default()
        }
    }

    /// The connection of a packet that the guest has sent.
    pub(super) fn key_from_guest(&self) -> ConnectionKey {
        ConnectionKey {
            host_port: self.dst_port,
            guest_port: self.src_port,
        }
    }

    /// The connection of a packet to the guest.
    pub(super) fn key_to_guest(&self) -> ConnectionKey {
        ConnectionKey {
            host_port: self.src_port,
            guest_port: self.dst_port,
        }
    }

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
