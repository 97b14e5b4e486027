//! One request in a queue: the bytes that the driver sends to the device, and the room for the bytes that the
//! device returns.
//!
//! The memory of a request is reached only through [`Request`], so that nothing is touched once the driver
//! has it back (`queue_access.rs`). A piece that was read with access shows that everything read before
//! it was read with access too, the descriptors included: revoked access stays revoked for the rest of the
//! request.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::mailbox::Mailbox;

/// Most bytes that may be read or written at a time: a driver that resets the device waits for that.
pub(super) const MAX_PIECE: usize = 128 << 10;

/// The memory cannot be used: the request has less of it, or it belongs to the driver again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

/// A request.
pub(super) struct Request<'a> {
    queue: usize,
    mailbox: &'a Mailbox,
    reader: Reader<'a>,
    writer: Writer<'a>,
    tail: Option<Writer<'a>>,
}

impl<'a> Request<'a> {
    /// The request `chain` of queue `queue`; `None` if a part of it is not in the guest's memory.
    pub(super) fn new(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
        mailbox: &'a Mailbox,
        queue: usize,
    ) -> Option<Self> {
        Some(Self {
            queue,
            mailbox,
            reader: chain.clone().reader(memory).ok()?,
            writer: chain.writer(memory).ok()?,
            tail: None,
        })
    }

    /// Bytes from the driver that have not been read yet.
    pub(super) fn readable(&self) -> usize {
        self.reader.available_bytes()
    }

    /// Bytes of room for the driver that have not been written yet, without the tail.
    pub(super) fn writable(&self) -> usize {
        self.writer.available_bytes()
    }

    /// Bytes that have been written from the start of the room, without a gap.
    pub(super) fn written(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Reserves the last `length` bytes of the room for [`Self::write_tail`]. Returns false if the room is
    /// shorter.
    pub(super) fn reserve_tail(&mut self, length: usize) -> bool {
        let rest = self.writable().checked_sub(length);
        self.tail = rest.and_then(|rest| self.writer.split_at(rest).ok());
        self.tail.is_some()
    }

    /// Fills `into` with the next bytes from the driver.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), NoMemory> {
        debug_assert!(into.len() <= MAX_PIECE);
        let reader = &mut self.reader;
        let read = || reader.read_exact(into).map_err(|_| NoMemory);
        self.mailbox
            .access()
            .touch(self.queue, read)
            .ok_or(NoMemory)?
    }

    /// Writes all of `bytes` into the room, or nothing if they do not fit.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        write(self.mailbox, self.queue, &mut self.writer, bytes)
    }

    /// Writes into the reserved end of the room.
    pub(super) fn write_tail(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let tail = self.tail.as_mut().ok_or(NoMemory)?;
        write(self.mailbox, self.queue, tail, bytes)
    }

    /// Whether the queue belongs to the driver again, so that the request is void.
    pub(super) fn is_void(&self) -> bool {
        self.mailbox.access().is_revoked(self.queue)
    }

    /// Between two pieces of a long request: whether to go on. Waits until the device's thread may use the
    /// CPU.
    pub(super) fn may_continue(&self) -> bool {
        self.mailbox.may_continue_request(self.queue)
    }
}

fn write(
    mailbox: &Mailbox,
    queue: usize,
    writer: &mut Writer,
    bytes: &[u8],
) -> Result<(), NoMemory> {
    debug_assert!(bytes.len() <= MAX_PIECE);
    if bytes.len() > writer.available_bytes() {
        return Err(NoMemory);
    }
    let write = || writer.write_all(bytes).map_err(|_| NoMemory);
    mailbox.access().touch(queue, write).ok_or(NoMemory)?
}
