//! A minimal virtio-mmio driver: devices with one queue, which the guest polls.
//!
//! Source: VIRTIO 1.2, 2.7 (split virtqueues) and 4.2 (virtio over MMIO).

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use crate::layout::VIRTIO_MMIO;
use crate::mmio;

/// Entries of a [`Queue`].
pub const ENTRIES: u16 = 256;
/// The largest number of devices of a guest under Baton.
pub const MAX_DEVICES: usize = 8;

/// [`Device::kind`] of a disk.
pub const BLOCK: u32 = 2;

/// [`Queue::describe`]: the next descriptor continues the request.
pub const NEXT: u16 = 1;
/// [`Queue::describe`]: the device writes there.
pub const WRITE: u16 = 2;

/// Bytes of a device's registers; those of the next device follow.
const REGISTERS_LENGTH: u64 = 0x1000;

const MAGIC: u64 = 0x00;
const KIND: u64 = 0x08;
const OFFERED: u64 = 0x10;
const OFFERED_HALF: u64 = 0x14;
const FEATURES: u64 = 0x20;
const FEATURES_HALF: u64 = 0x24;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const DESCRIPTORS: u64 = 0x80;
const AVAILABLE: u64 = 0x90;
const USED: u64 = 0xa0;

/// "virt".
const MAGIC_VALUE: u32 = 0x7472_6976;
/// Bit 32, `VIRTIO_F_VERSION_1`, in the high half.
const VERSION_1: u32 = 1;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// A device's registers.
pub struct Device {
    base: u64,
}

impl Device {
    /// The device in this slot, if there is one.
    pub fn in_slot(slot: u32) -> Option<Self> {
        let device = Self {
            base: VIRTIO_MMIO + u64::from(slot) * REGISTERS_LENGTH,
        };
        let there = (slot as usize) < MAX_DEVICES && device.read(MAGIC) == MAGIC_VALUE;
        there.then_some(device)
    }

    /// Its virtio device type.
    pub fn kind(&self) -> u32 {
        self.read(KIND)
    }

    /// Resets the device and starts it with `queue` as its queue 0, which must not be in use. The driver
    /// accepts no feature except the version.
    pub fn start(&self, queue: &'static Queue) {
        self.start_with(queue, 0);
    }

    /// The offered feature bits 0 to 31.
    pub fn features(&self) -> u32 {
        self.write(OFFERED_HALF, 0);
        self.read(OFFERED)
    }

    /// [`Self::start`], with these of the feature bits 0 to 31 accepted.
    pub fn start_with(&self, queue: &'static Queue, features: u32) {
        self.reset();
        let mut status = 0;
        let mut set_status = |bit| {
            status |= bit;
            self.write(STATUS, status);
        };
        set_status(ACKNOWLEDGE);
        set_status(DRIVER);
        self.write(FEATURES_HALF, 1);
        self.write(FEATURES, VERSION_1);
        self.write(FEATURES_HALF, 0);
        self.write(FEATURES, features);
        set_status(FEATURES_OK);
        self.set_queue(queue);
        set_status(DRIVER_OK);
    }

    /// Gives the device `queue` as its queue 0, which must not be ready.
    pub fn set_queue(&self, queue: &'static Queue) {
        self.write(QUEUE_SELECT, 0);
        self.write(QUEUE_SIZE, ENTRIES.into());
        self.write_address(DESCRIPTORS, &raw const queue.descriptors as u64);
        self.write_address(AVAILABLE, &raw const queue.available as u64);
        self.write_address(USED, &raw const queue.used as u64);
        self.write(QUEUE_READY, 1);
    }

    /// Begins to stop queue 0. The device no longer uses it when [`Self::is_queue_ready`] is false.
    pub fn stop_queue(&self) {
        self.write(QUEUE_SELECT, 0);
        self.write(QUEUE_READY, 0);
    }

    /// Whether the device may still use queue 0.
    pub fn is_queue_ready(&self) -> bool {
        self.write(QUEUE_SELECT, 0);
        self.read(QUEUE_READY) != 0
    }

    /// Its status; 0 when a reset is complete.
    pub fn status(&self) -> u32 {
        self.read(STATUS)
    }

    /// Notifies the device of new requests.
    pub fn notify(&self) {
        self.write(NOTIFY, 0);
    }

    /// Begins a reset, which is complete when [`Self::status`] is 0.
    pub fn reset(&self) {
        self.write(STATUS, 0);
    }

    fn write_address(&self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        // SAFETY: a device's registers, which `entry.rs` maps uncached.
        unsafe { mmio::read(self.base + register) }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: a device's registers, which `entry.rs` maps uncached.
        unsafe { mmio::write(self.base + register, value) };
    }
}

/// A split virtqueue. Addresses are physical ones here.
#[repr(C, align(4096))]
pub struct Queue {
    descriptors: [[AtomicU64; 2]; ENTRIES as usize],
    available: Available,
    used: Used,
}

#[repr(C)]
struct Available {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; ENTRIES as usize],
    event: AtomicU16,
}

#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [[AtomicU32; 2]; ENTRIES as usize],
    event: AtomicU16,
}

impl Queue {
    /// An empty queue.
    pub const fn new() -> Self {
        // SAFETY: integers only, for which all zeroes is a value.
        unsafe { core::mem::zeroed() }
    }

    /// Writes a descriptor. `index` and `next` must be below [`ENTRIES`].
    pub fn describe(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let [place, rest] = &self.descriptors[usize::from(index)];
        place.store(address, Relaxed);
        let flags = u64::from(flags) << 32 | u64::from(next) << 48;
        rest.store(u64::from(length) | flags, Relaxed);
    }

    /// Offers the request that begins with descriptor `head`.
    pub fn offer(&self, head: u16) {
        let index = self.available.index.load(Relaxed);
        self.available.ring[usize::from(index % ENTRIES)].store(head, Relaxed);
        // Release: the device reads the request when it sees the index.
        self.available.index.store(index.wrapping_add(1), Release);
    }

    /// Whether the device has completed all requests.
    pub fn is_done(&self) -> bool {
        self.used.index.load(Acquire) == self.available.index.load(Relaxed)
    }

    /// Removes all requests; no device may use the queue.
    pub fn clear(&self) {
        self.available.index.store(0, Relaxed);
        self.used.index.store(0, Relaxed);
    }

    /// How many bytes the device wrote for the last completed request, by its own account.
    pub fn written(&self) -> u32 {
        let last = self.used.index.load(Acquire).wrapping_sub(1);
        self.used.ring[usize::from(last % ENTRIES)][1].load(Relaxed)
    }
}
