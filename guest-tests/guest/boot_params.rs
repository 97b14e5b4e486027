//! The boot parameters (Linux `struct boot_params`) that the loader left in memory.
//!
//! Source: Linux, Documentation/arch/x86/boot.rst.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::layout::MAPPED;

/// Address of the boot parameters; written by the entry code.
pub static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// Longest command line that is read, bytes.
const COMMAND_LINE_MAX: u64 = 4096;

/// Offsets of the fields `hdr.*`.
const RAM_DISK_IMAGE: u64 = 0x218;
const RAM_DISK_SIZE: u64 = 0x21c;
const COMMAND_LINE_POINTER: u64 = 0x228;
/// Length of the boot parameters, bytes.
const LENGTH: u64 = 4096;

/// A field of 32 bits; `None` without boot parameters.
fn field(offset: u64) -> Option<u64> {
    let address = ADDRESS.load(Relaxed);
    if address == 0 || address >= MAPPED - LENGTH {
        return None;
    }
    // SAFETY: mapped, and the boot protocol guarantees the field.
    let value = unsafe { ((address + offset) as *const u32).read_unaligned() };
    Some(value.into())
}

/// The command line; empty if there is none.
pub fn command_line() -> &'static [u8] {
    let start = field(COMMAND_LINE_POINTER).unwrap_or(0);
    if start == 0 || start >= MAPPED - COMMAND_LINE_MAX {
        return &[];
    }
    // SAFETY: mapped for COMMAND_LINE_MAX bytes; memory that the guest does not use.
    let bytes = unsafe { slice::from_raw_parts(start as *const u8, COMMAND_LINE_MAX as usize) };
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// The RAM disk; empty if there is none.
pub fn ram_disk() -> &'static [u8] {
    let start = field(RAM_DISK_IMAGE).unwrap_or(0);
    let length = field(RAM_DISK_SIZE).unwrap_or(0);
    if start == 0 || start + length > MAPPED {
        return &[];
    }
    // SAFETY: mapped, and memory that is never written.
    unsafe { slice::from_raw_parts(start as *const u8, length as usize) }
}
