//! Where things lie in a guest's physical memory.

/// Where the hole for the interrupt controllers and other MMIO begins: RAM stops here and goes on
/// at [`MMIO_HOLE_END`].
pub const MMIO_HOLE_START: u64 = 0xc000_0000;
/// First address after the MMIO hole.
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;
