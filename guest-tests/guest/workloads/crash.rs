//! Crashes of the guest.

use core::arch::asm;

use crate::{idt, layout};

/// Raises an exception without any handler, so that the machine shuts down.
pub fn triple_fault() -> ! {
    idt::clear();
    // SAFETY: raises an exception, from which nothing returns.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Reads an address that is not mapped. The fault handler reports that and ends the guest.
pub fn page_fault() -> ! {
    // SAFETY: not sound memory access but a page fault, from which nothing returns.
    unsafe {
        asm!("mov rax, [{}]", "ud2", in(reg) layout::MAPPED + 0x1234, options(noreturn));
    }
}
