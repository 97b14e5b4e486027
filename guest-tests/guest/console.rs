//! The debug console. It has no lock, because the workloads let one vCPU print at a time.
//!
//! The precompiled `core` uses a red zone, and interrupts arrive on the same stack. So nothing may print
//! while an interrupt with a CPL-3 handler may arrive.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::port;
use crate::testdev::PORT_CONSOLE;

/// The first serial port's data register, for `console=ttyS0`.
pub const PORT_SERIAL: u16 = 0x3f8;

static PORT: AtomicU32 = AtomicU32::new(PORT_CONSOLE as u32);

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let to = PORT.load(Relaxed) as u16;
        text.bytes().for_each(|byte| port::out8(to, byte));
        Ok(())
    }
}

/// Prints to another port from here on.
pub fn use_port(port: u16) {
    PORT.store(port.into(), Relaxed);
}

/// Prints text and a line feed.
pub fn line(text: fmt::Arguments) {
    // The console's writer cannot fail.
    let _ = Console.write_fmt(text);
    let _ = Console.write_str("\n");
}
