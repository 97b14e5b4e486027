//! The context switch: what the C calling convention lets a function change is the caller's
//! business, so six registers and the stack pointer are all there is to a task. Floating-point
//! control words are never changed here.

use core::arch::naked_asm;

/// Keeps this context's stack pointer in `from` and goes on with the context whose is `to`; returns
/// when somebody switches back.
///
/// # Safety
/// `from` must be writable, and `to` a context that this kept or that [`prepare`] made, with its
/// stack intact; nothing else may use that context's stack.
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
    // `entry` finds the stack as after a CALL: a return address (nobody's) on a 16-byte boundary
    // less eight.
    let frame = (top as *mut usize).wrapping_sub(1 + 1 + SAVED);
    // SAFETY: within the stack, as the caller says.
    unsafe {
        frame.write_bytes(0, 1 + 1 + SAVED);
        frame.add(SAVED).write(entry as usize);
    }
    frame as usize
}
