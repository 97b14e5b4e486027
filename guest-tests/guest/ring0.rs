//! The few things that only CPL 0 can do, behind `INT3` (see `idt.rs` for the other side).

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Halts until an interrupt, unless `word` differs from `value`. A wake-up that changes `word` before it
/// interrupts is not lost.
pub fn halt_while(word: &AtomicU32, value: u32) {
    // SAFETY: the service reads `word` and changes no register; interrupt handlers save theirs.
    unsafe { asm!("int3", in("edi") 0, in("rsi") word, in("edx") value) };
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must not change how the guest's memory is addressed or its code is executed.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the service executes WRMSR on these registers; the caller guarantees its effect.
    unsafe {
        asm!("int3", in("edi") 1, in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32);
    }
}

/// The address of the last page fault.
pub fn read_cr2() -> u64 {
    let address;
    // SAFETY: the service changes RAX alone.
    unsafe { asm!("int3", in("edi") 2, out("rax") address) };
    address
}

/// What follows a halt that [`halt_before`] makes.
#[derive(Clone, Copy)]
pub enum AfterHalt {
    /// The way back to CPL 3, with nothing in between.
    Return = 3,
    /// `INT`, whose handler keeps the vCPU. KVM does not emulate it at CPL 0.
    Interrupt = 4,
    /// An instruction that faults, whose handler keeps the vCPU once
    /// [`crate::idt::keep_at_divide_error`] was called.
    Fault = 5,
}

/// The TSC value at which a handler that keeps its vCPU returns.
pub static KEEP_UNTIL: AtomicU64 = AtomicU64::new(0);

/// As [`halt_while`], with another instruction after the halt. A handler that keeps the vCPU computes at
/// CPL 0 with interrupts off until [`KEEP_UNTIL`], and counts this vCPU's iterations.
pub fn halt_before(after: AfterHalt, word: &AtomicU32, value: u32) {
    // SAFETY: the service reads `word`; it and the handler change these registers and the iterations.
    unsafe {
        asm!("int3", in("edi") after as u32, in("rsi") word, inout("edx") value => _,
            out("rax") _, out("rcx") _);
    }
}
