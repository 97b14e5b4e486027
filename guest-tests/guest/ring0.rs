//! The few things that only CPL 0 can do, behind `INT3` (see `idt.rs` for the other side).

use core::arch::asm;
use core::sync::atomic::AtomicU32;

/// Halts until an interrupt, unless `word` differs from `value`; no wake-up that changes `word`
/// before it interrupts is lost.
pub fn halt_while(word: &AtomicU32, value: u32) {
    // SAFETY: the service reads `word` and changes no register; interrupt handlers save theirs.
    unsafe { asm!("int3", in("edi") 0, in("rsi") word, in("edx") value) };
}

/// Writes a model-specific register.
///
/// # Safety
/// Must not change how the guest's memory is addressed or its code executed.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the service executes WRMSR on these registers; the caller answers for its effect.
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
