//! A spin that detects whether anything else has changed the task's registers or red zone meanwhile.

use core::arch::naked_asm;
use core::sync::atomic::AtomicU64;

/// Spins while `word` is below `value`. Returns whether everything that an interrupt must not change was
/// unchanged at the end: the general registers, the vector registers and 128 bytes below the stack
/// pointer.
pub fn spin_keeps_registers(word: &AtomicU64, value: u64) -> bool {
    // SAFETY: reads `word` and follows the calling convention, except that it uses the red zone, which is
    // free.
    unsafe { spin_and_compare(word, value, value << 32) == 0 }
}

/// Fills every register and word with `seed` plus a number of its own, spins, and returns the bits that
/// differ.
#[unsafe(naked)]
unsafe extern "C" fn spin_and_compare(word: *const AtomicU64, value: u64, seed: u64) -> u64 {
    naked_asm!(
        r#"
        .irp register, rbx, rbp, r12, r13, r14, r15; push \register; .endr
        .set number, 1
        .irp at, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        lea rax, [rdx + number]
        mov [rsp - 8 - 8 * \at], rax
        movq xmm\at, rax
        punpcklqdq xmm\at, xmm\at
        .set number, number + 1
        .endr
        .irp register, rax, rbx, rcx, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        lea \register, [rdx + number]
        .set number, number + 1
        .endr
    2:  pause
        cmp [rdi], rsi
        jb 2b
        .set number, 17
        .irp register, rax, rbx, rcx, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        sub \register, rdx
        sub \register, number
        .set number, number + 1
        .endr
        .irp register, rbx, rcx, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        or rax, \register
        .endr
        .set number, 1
        .irp at, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        lea rbx, [rdx + number]
        mov rcx, [rsp - 8 - 8 * \at]
        xor rcx, rbx
        or rax, rcx
        movq rcx, xmm\at
        xor rcx, rbx
        or rax, rcx
        punpckhqdq xmm\at, xmm\at
        movq rcx, xmm\at
        xor rcx, rbx
        or rax, rcx
        .set number, number + 1
        .endr
        .irp register, r15, r14, r13, r12, rbp, rbx; pop \register; .endr
        ret
        "#
    )
}
