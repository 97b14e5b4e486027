//! Registers of devices in memory.
//!
//! In assembly, so that each access is one plain load or store that every hypervisor can emulate.

use core::arch::asm;

/// Writes a register.
///
/// # Safety
/// `address` is mapped uncached and holds a device's register, so no Rust object.
pub unsafe fn write(address: u64, value: u32) {
    // SAFETY: the caller guarantees the address. A device may access the guest's memory, so the compiler
    // takes the asm as an access to memory.
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
