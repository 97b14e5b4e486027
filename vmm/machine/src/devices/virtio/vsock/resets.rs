//! Resets for the guest that belong to no connection.

use std::collections::VecDeque;

use super::packet::{ConnectionKey, HOST_CID, PacketHeader, STREAM, op};

/// Most resets that wait for a buffer of the guest.
pub(super) const MAX_RESETS: usize = 256;

/// The resets that wait for a buffer of the guest. At the limit a further reset is dropped: a guest that
/// still believes in the connection is sent one when it uses the connection the next time.
#[derive(Debug, Default)]
pub(super) struct Resets(VecDeque<Reset>);

#[derive(Debug)]
struct Reset {
    src_cid: u64,
    kind: u16,
    key: ConnectionKey,
}

impl Resets {
    /// Adds a reset of the connection `key`.
    pub(super) fn push(&mut self, key: ConnectionKey) {
        self.add(Reset {
            src_cid: HOST_CID,
            kind: STREAM,
            key,
        });
    }

    /// Adds a reset in answer to a packet of the guest. It comes from the address to which the packet was sent,
    /// so that the guest can assign it.
    pub(super) fn push_answer(&mut self, packet: &PacketHeader) {
        self.add(Reset {
            src_cid: packet.dst_cid,
            kind: packet.kind,
            key: packet.key_from_guest(),
        });
    }

    fn add(&mut self, reset: Reset) {
        if self.0.len() < MAX_RESETS {
            self.0.push_back(reset);
        }
    }

    /// Takes the next reset, as a packet for the guest `cid`.
    pub(super) fn pop(&mut self, cid: u64) -> Option<PacketHeader> {
        let reset = self.0.pop_front()?;
        Some(PacketHeader {
            src_cid: reset.src_cid,
            kind: reset.kind,
            op: op::RESET,
            ..PacketHeader::to_guest(cid, reset.key)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Fails if the limit does not hold.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        assert!(self.0.len() <= MAX_RESETS);
    }
}
