//! The layout of a guest's physical memory.

/// Lowest address at which a kernel may be loaded. The boot structures and ACPI's tables are below.
pub const KERNEL_START: u64 = 0x10_0000;

/// Start of the hole for the interrupt controllers and other MMIO: RAM ends here and goes on at
/// [`MMIO_HOLE_END`].
pub const MMIO_HOLE_START: u64 = 0xc000_0000;
/// First address after the MMIO hole.
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;
