//! The end of the guest.

use core::sync::atomic::AtomicU32;

use crate::port;
use crate::ring0;
use crate::testdev::PORT_EXIT;

const PORT_KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// Ends the guest with this code.
pub fn end(code: u32) -> ! {
    port::out32(PORT_EXIT, code);
    // On a machine without the test device: small VMMs end when the keyboard controller resets it.
    port::out8(PORT_KEYBOARD, KEYBOARD_RESET);
    let never = AtomicU32::new(0);
    loop {
        ring0::halt_while(&never, 0);
    }
}
