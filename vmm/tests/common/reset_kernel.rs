//! A kernel that prints `up` and ends at once, for guests that start again.

use super::{elf, file};

/// Prints `up`.
const PRINT: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'u', 0xee, // mov al, 'u'; out dx, al
    0xb0, b'p', 0xee, //
    0xb0, b'\n', 0xee, //
];
/// Resets the machine by the register that ACPI names, which is the keyboard controller's.
pub const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64]; // mov al, 0xfe; out 0x64, al
/// Faults, where no fault has a handler.
pub const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b]; // ud2
/// Port writes from one start to the reset.
pub const WRITES: u64 = 4;

/// A kernel in the file `name` that prints `up` and ends by `last`.
pub fn kernel(name: &str, last: &[u8]) -> String {
    let code = [PRINT, last].concat();
    let path = file(name, &elf(&code, 1 << 20, 1 << 20));
    path.to_string_lossy().into_owned()
}
