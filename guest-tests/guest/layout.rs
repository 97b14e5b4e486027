//! The guest's physical addresses, which are its virtual ones too: `entry.rs` maps them identically.

/// Where the real-mode trampoline is copied; its page number is the SIPI vector.
pub const TRAMPOLINE: u64 = 0x8000;

/// Bytes that the guest's page tables map from 0.
pub const MAPPED: u64 = 1 << 30;

/// Registers of the first virtio device.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;

/// Registers of the local APIC (xAPIC mode).
pub const LOCAL_APIC: u64 = 0xfee0_0000;
