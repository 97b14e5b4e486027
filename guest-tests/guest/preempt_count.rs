//! The count of how often preemption is disabled, in the form in which an x86 Linux kernel has it: a
//! 32-bit word of each vCPU at a fixed offset from the base of GS. A hypervisor can read it, and can find
//! the offset by the instructions that change the count.

use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

use crate::cpu::Cpu;

/// The count while preemption is enabled. In Linux the highest bit is clear while the scheduler has to
/// run; here it is always set, because `preempt.rs` keeps that in a word of its own.
pub const ENABLED: u32 = 1 << 31;

/// An instruction by its opcode and ModRM byte, with the count as its operand: relative to RIP, as in
/// Linux. (For a constant address the assembler would not emit the distance.)
macro_rules! change_count {
    ($opcode:literal) => {
        // SAFETY: the base of GS is this vCPU's block. Memory accesses stay on their side of the change.
        unsafe {
            asm!(
                concat!(".byte 0x65, ", $opcode),
                ".long {offset} - . - 4",
                offset = const Cpu::PREEMPT_COUNT_OFFSET,
                options(nostack),
            )
        }
    };
}

/// Adds one to the count of the vCPU that executes this.
#[inline(always)]
pub fn increment() {
    change_count!("0xff, 0x05"); // incl %gs:offset(%rip)
}

/// Subtracts one from the count of the vCPU that executes this.
#[inline(always)]
pub fn decrement() {
    change_count!("0xff, 0x0d"); // decl %gs:offset(%rip)
}

/// How often preemption is disabled on this vCPU, which must be the one that executes this.
#[inline(always)]
pub fn depth(cpu: &Cpu) -> u32 {
    cpu.preempt_count.load(Relaxed) - ENABLED
}

/// Replaces the depth.
pub fn set_depth(cpu: &Cpu, depth: u32) {
    cpu.preempt_count.store(ENABLED + depth, Relaxed);
}
