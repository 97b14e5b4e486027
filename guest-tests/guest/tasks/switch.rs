//! The context switch. The caller saves what the C calling convention lets a function change, so a
//! context consists of six registers and the stack pointer. The guest never changes floating-point
//! control words.

use core::arch::naked_asm;

/// Stores this context's stack pointer in `from` and continues the context whose stack pointer is `to`.
/// Returns when another switch continues this context.
///
/// # Safety
/// `from` must be writable. `to` must be a context that this function stored or that [`prepare`] made,
/// with its stack intact, and nothing else may use that stack.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(from: *mut usize, to: usize) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Registers that [`switch`] pops.
const SAVED: usize = 6;

/// A context that begins with `entry` on the stack that ends at `top`.
///
/// # Safety
/// The stack must be memory that nothing else uses, `top` a multiple of 16.
pub unsafe fn prepare(top: usize, entry: extern "C" fn() -> !) -> usize {
    // `entry` finds the stack as after a CALL: a return address, here zero, eight bytes below a 16-byte
    // boundary.
    let frame = (top as *mut usize).wrapping_sub(1 + 1 + SAVED);
    // SAFETY: within the stack, which is free by the caller's contract.
    unsafe {
        frame.write_bytes(0, 1 + 1 + SAVED);
        frame.add(SAVED).write(entry as usize);
    }
    frame as usize
}
