//! One request in a queue: the bytes that the driver has for the device, and the room for those that it
//! wants.
//!
//! This is the only way to the memory of a request, so that none is touched when the driver has it back
//! (`access.rs`). What is read under that rule vouches for all that was read before, the descriptors
//! too: access that is revoked stays so for the rest of the request.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::mailbox::Orders;

/// Most bytes that may be read or written at a time: a driver that resets the device waits for that.
pub(super) const MOST_AT_ONCE: usize = 128 << 10;

/// The memory is not there: there is less of it, or the driver has it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

/// A request.
pub(super) struct Request<'a> {
    queue: usize,
    orders: &'a Orders,
    reader: Reader<'a>,
    writer: Writer<'a>,
    tail: Option<Writer<'a>>,
}

impl<'a> Request<'a> {
    /// The request `chain` of queue `queue`; `None` if a part of it is not in the guest's memory.
    pub(super) fn new(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&GuestMemoryMmap>,
        orders: &'a Orders,
        queue: usize,
    ) -> Option<Self> {
        Some(Self {
            queue,
            orders,
            reader: chain.clone().reader(memory).ok()?,
            writer: chain.writer(memory).ok()?,
            tail: None,
        })
    }

    /// Bytes that the driver has for the device and that are not read yet.
    pub(super) fn readable(&self) -> usize {
        self.reader.available_bytes()
    }

    /// Bytes for which the driver has room left, without the tail.
    pub(super) fn writable(&self) -> usize {
        self.writer.available_bytes()
    }

    /// Bytes that were written without a gap from the begin of the room.
    pub(super) fn written(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Sets the last `length` bytes of the room apart, for [`Self::write_tail`]. False if there are not
    /// as many.
    pub(super) fn reserve_tail(&mut self, length: usize) -> bool {
        let rest = self.writable().checked_sub(length);
        self.tail = rest.and_then(|rest| self.writer.split_at(rest).ok());
        self.tail.is_some()
    }

    /// Fills `into` with the next bytes.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), NoMemory> {
        debug_assert!(into.len() <= MOST_AT_ONCE);
        let reader = &mut self.reader;
        let read = || reader.read_exact(into).map_err(|_| NoMemory);
        self.orders
            .access()
            .touch(self.queue, read)
            .ok_or(NoMemory)?
    }

    /// Writes all of `bytes`, or none if there is no room for them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        write(self.orders, self.queue, &mut self.writer, bytes)
    }

    /// Writes into the room that was set apart.
    pub(super) fn write_tail(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let tail = self.tail.as_mut().ok_or(NoMemory)?;
        write(self.orders, self.queue, tail, bytes)
    }

    /// Whether the driver has the memory of its queue back, so that nobody waits for the request.
    pub(super) fn is_void(&self) -> bool {
        self.orders.access().is_revoked(self.queue)
    }

    /// Whether somebody still waits for this request. Between two pieces of a long one: the device's
    /// thread may have to wait here until it may go on.
    pub(super) fn goes_on(&self) -> bool {
        self.orders.may_go_on_after_pause(self.queue)
    }
}

fn write(orders: &Orders, queue: usize, writer: &mut Writer, bytes: &[u8]) -> Result<(), NoMemory> {
    debug_assert!(bytes.len() <= MOST_AT_ONCE);
    if bytes.len() > writer.available_bytes() {
        return Err(NoMemory);
    }
    let write = || writer.write_all(bytes).map_err(|_| NoMemory);
    orders.access().touch(queue, write).ok_or(NoMemory)?
}
