//! A guest that returns what is typed to it.

use std::arch::global_asm;

use baton_abi::testdev;

use super::file;
use super::pvh::{OWNER, PHYS32_ENTRY, elf};

// Prints a prompt to its serial port and returns each byte that it gets there, until it gets a `q`.
global_asm!(
    ".pushsection .rodata.baton_echo_guest, \"a\"",
    ".code32",
    ".globl baton_echo_guest",
    "baton_echo_guest:",
    "mov edx, 0x3f9",
    "mov al, 1",
    "out dx, al",
    "mov edx, 0x3f8",
    "mov al, 62", // the prompt, >
    "out dx, al",
    "2:",
    "mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 2b",
    "mov edx, 0x3f8",
    "in al, dx",
    "cmp al, 113", // q
    "je 3f",
    "out dx, al",
    "jmp 2b",
    "3:",
    "mov edx, {exit}",
    "xor eax, eax",
    "out dx, eax",
    "4:",
    "hlt",
    "jmp 4b",
    ".globl baton_echo_guest_end",
    "baton_echo_guest_end:",
    ".code64",
    ".popsection",
    exit = const testdev::PORT_EXIT,
);

unsafe extern "C" {
    static baton_echo_guest: u8;
    static baton_echo_guest_end: u8;
}

/// The guest, in a file of the test `name`.
pub fn kernel(name: &str) -> String {
    let (from, to) = (&raw const baton_echo_guest, &raw const baton_echo_guest_end);
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    let kernel = file(&format!("{name}.elf"), &elf(code, OWNER, PHYS32_ENTRY));
    kernel.to_string_lossy().into_owned()
}
