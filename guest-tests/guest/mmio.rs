//! Registers of devices in memory.
//!
//! Assembly, so that each access is one plain load or store that every hypervisor's emulator knows.

use core::arch::asm;

/// Writes a register.
///
/// # Safety
/// `address` is mapped uncached and holds a device's register, so no Rust object.
pub unsafe fn write(address: u64, value: u32) {
    // SAFETY: the caller vouches for the address; a device may read and write the guest's memory, so the
    // asm counts as touching it.
    unsafe {
        asm!("mov [{}], {:e}", in(reg) address, in(reg) value, options(nostack, preserves_flags));
    }
}

/// Reads a register.
///
/// # Safety
/// As [`write`].
pub unsafe fn read(address: u64) -> u32 {
    let value;
    // SAFETY: as `write`.
    unsafe {
        asm!("mov {:e}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags));
    }
    value
}
