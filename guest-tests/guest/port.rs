//! Port I/O; IOPL 3 allows it at CPL 3.

use core::arch::asm;

/// What an `IN` reads where no device answers.
const NO_DEVICE: u32 = u32::MAX;

/// Writes 32 bits to a port.
#[inline(always)]
pub fn out32(port: u16, value: u32) {
    // SAFETY: through the ports that the guest uses, the host accesses only the hint pages and the wait
    // counts, which are atomics; the compiler takes the asm as an access to memory.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

/// Writes 8 bits to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: as `out32`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Reads 32 bits from a port; `None` if no device answers.
pub fn in32(port: u16) -> Option<u32> {
    let value;
    // SAFETY: as `out32`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    (value != NO_DEVICE).then_some(value)
}

/// Reads `into.len()` bytes from a port with one instruction.
pub fn in_bytes(port: u16, into: &mut [u8]) {
    // SAFETY: fills the slice and nothing else; ports as `out32`.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") into.as_mut_ptr() => _,
            inout("rcx") into.len() => _, options(nostack, preserves_flags));
    }
}

/// Writes bytes to a port with one instruction.
pub fn out_bytes(port: u16, bytes: &[u8]) {
    // SAFETY: reads the slice and nothing else; ports as `out32`.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _, options(nostack, preserves_flags));
    }
}
