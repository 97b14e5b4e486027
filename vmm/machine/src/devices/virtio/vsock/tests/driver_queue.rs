//! The driver's side of a queue.

use virtio_bindings::virtio_ring::VRING_DESC_F_NEXT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A queue on the driver's side, with one request in it at a time.
pub(super) struct DriverQueue {
    pub(super) at: u64,
    /// Requests that were made available.
    pub(super) given: u16,
    /// Used requests that were taken.
    pub(super) seen: u16,
}

impl DriverQueue {
    pub(super) const SIZE: u16 = 16;
    pub(super) const AVAILABLE: u64 = 0x400;
    pub(super) const USED: u64 = 0x800;

    pub(super) fn new(at: u64) -> Self {
        Self {
            at,
            given: 0,
            seen: 0,
        }
    }

    pub(super) fn queue(&self) -> Queue {
        let mut queue = Queue::new(Self::SIZE).expect("a queue");
        queue.set_desc_table_address(Some(self.at as u32), Some(0));
        queue.set_avail_ring_address(Some((self.at + Self::AVAILABLE) as u32), Some(0));
        queue.set_used_ring_address(Some((self.at + Self::USED) as u32), Some(0));
        queue.set_ready(true);
        queue
    }

    /// Makes a request available, of parts with an address, a length and flags.
    pub(super) fn give(&mut self, memory: &GuestMemoryMmap, parts: &[(u64, u32, u16)]) {
        for (number, (at, length, flags)) in parts.iter().enumerate() {
            let next = match number + 1 < parts.len() {
                true => VRING_DESC_F_NEXT as u16,
                false => 0,
            };
            let mut bytes = at.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend((flags | next).to_le_bytes());
            bytes.extend((number as u16 + 1).to_le_bytes());
            let entry = GuestAddress(self.at + 16 * number as u64);
            memory.write_slice(&bytes, entry).expect("a part");
        }
        let entry = self.at + Self::AVAILABLE + 4 + 2 * u64::from(self.given % Self::SIZE);
        memory.write_obj(0u16, GuestAddress(entry)).expect("entry");
        self.given = self.given.wrapping_add(1);
        let index = GuestAddress(self.at + Self::AVAILABLE + 2);
        memory.write_obj(self.given.to_le(), index).expect("index");
    }

    /// The number of bytes that the device has written for the next request, if it has used that.
    pub(super) fn used(&mut self, memory: &GuestMemoryMmap) -> Option<u32> {
        let index = GuestAddress(self.at + Self::USED + 2);
        let index: u16 = memory.read_obj(index).expect("index");
        if u16::from_le(index) == self.seen {
            return None;
        }
        let entry = self.at + Self::USED + 8 + 8 * u64::from(self.seen % Self::SIZE);
        self.seen = self.seen.wrapping_add(1);
        let length: u32 = memory.read_obj(GuestAddress(entry)).expect("length");
        Some(u32::from_le(length))
    }
}
