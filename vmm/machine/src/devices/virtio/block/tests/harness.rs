//! A driver for the tests: sends one request to a disk and reads what comes back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use baton_config::DiskConfig;
use baton_config::rate::RateLimit;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::super::device::VirtioDevice;
use super::super::super::mailbox::Mailbox;
use super::super::super::request::Request;
use super::super::super::test_support::memory;
use super::super::device::Block;
use super::super::disk::SECTOR;
use crate::devices::error::DeviceError;

/// Flag of a descriptor that another one follows.
pub(super) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
/// Flag of a descriptor that the device writes.
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// Addresses of the parts of a request.
pub(super) const HEADER: u64 = 0x1000;
pub(super) const DATA: u64 = 0x2000;
pub(super) const STATUS: u64 = 0x8000;
/// Address of the queue.
const QUEUE: u64 = 0x1_0000;
/// The status byte before the device writes it.
pub(super) const NO_STATUS: u8 = 0xff;
pub(super) const OK: u8 = VIRTIO_BLK_S_OK as u8;
pub(super) const FAILED: u8 = VIRTIO_BLK_S_IOERR as u8;

/// A file of so many sectors, each filled with its number. Dropping this removes the file.
pub(super) struct Image(pub(super) PathBuf);

impl Image {
    pub(super) fn new(sectors: u8) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-disk-{}-{number}", std::process::id()));
        let bytes: Vec<u8> = (0..sectors).flat_map(|n| [n; SECTOR as usize]).collect();
        std::fs::write(&path, bytes).expect("a file");
        Self(path)
    }

    pub(super) fn open(&self, read_only: bool) -> Result<Block, DeviceError> {
        Block::open(&DiskConfig {
            path: self.0.clone(),
            read_only,
            serial: None,
            limit: RateLimit::default(),
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A disk whose driver has accepted all features.
pub(super) fn with_driver(image: &Image, read_only: bool) -> Block {
    let mut block = image.open(read_only).expect("opens");
    block.accepted = block.features();
    block
}

/// Sends one request with `length` bytes of data. Returns its status and the data afterwards.
pub(super) fn request(
    block: &mut Block,
    kind: u32,
    sector: u64,
    data: &[u8],
    length: u32,
) -> (u8, Vec<u8>) {
    let mailbox = Mailbox::new().expect("a mailbox");
    request_under(block, &mailbox, kind, sector, data, length)
}

/// As [`request`], with `mailbox` as the mailbox of the device's thread.
pub(super) fn request_under(
    block: &mut Block,
    mailbox: &Mailbox,
    kind: u32,
    sector: u64,
    data: &[u8],
    length: u32,
) -> (u8, Vec<u8>) {
    let flags = match kind {
        VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID => WRITE,
        _ => 0,
    };
    let completion = send(block, mailbox, kind, sector, data, &[(length, flags)]);
    (completion.status, completion.data)
}

/// What the driver finds after a request.
pub(super) struct Completion {
    pub(super) status: u8,
    pub(super) data: Vec<u8>,
    /// Bytes written for the driver, as reported by the device; `None` if it was no request.
    pub(super) written: Option<u32>,
}

/// Sends one request with parts of these lengths and flags between header and status, all at [`DATA`].
pub(super) fn send(
    block: &mut Block,
    mailbox: &Mailbox,
    kind: u32,
    sector: u64,
    data: &[u8],
    middle: &[(u32, u16)],
) -> Completion {
    let memory = memory();
    write_request(&memory, kind, sector, data);
    let queue = MockSplitQueue::create(&memory, GuestAddress(QUEUE), 16);
    let chain = queue
        .build_desc_chain(&descriptors(middle))
        .expect("a chain");
    let mut request = Request::new(&memory, chain, mailbox, 0).expect("a request");
    let written = block.request(&mut request);
    let length = middle.iter().map(|(length, _)| *length as usize).max();
    let mut data = vec![0; length.unwrap_or(0)];
    memory
        .read_slice(&mut data, GuestAddress(DATA))
        .expect("data");
    Completion {
        status: memory.read_obj(GuestAddress(STATUS)).expect("status"),
        data,
        written,
    }
}

/// Writes header, data and [`NO_STATUS`] into memory.
fn write_request(memory: &GuestMemoryMmap, kind: u32, sector: u64, data: &[u8]) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    memory
        .write_slice(&header, GuestAddress(HEADER))
        .expect("header");
    memory.write_slice(data, GuestAddress(DATA)).expect("data");
    memory
        .write_obj(NO_STATUS, GuestAddress(STATUS))
        .expect("status");
}

/// The descriptors of header, the parts in the middle that have a length, and status.
fn descriptors(middle: &[(u32, u16)]) -> Vec<RawDescriptor> {
    let middle = middle.iter().filter(|(length, _)| *length > 0);
    [(HEADER, 16, 0)]
        .into_iter()
        .chain(middle.map(|(length, flags)| (DATA, *length, *flags)))
        .chain([(STATUS, 1, WRITE)])
        .zip(1..)
        .map(|((at, length, flags), next)| {
            let more = if at == STATUS { 0 } else { NEXT };
            RawDescriptor::from(Descriptor::new(at, length, flags | more, next))
        })
        .collect()
}
