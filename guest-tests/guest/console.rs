//! The debug console. One vCPU prints at a time (the workloads see to it), so it has no lock.
//!
//! The precompiled `core` uses a red zone, and interrupts arrive on the same stack: nothing prints
//! while an interrupt with a CPL-3 handler may come.

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

/// Sends what follows to another port.
pub fn use_port(port: u16) {
    PORT.store(port.into(), Relaxed);
}

/// Prints text and a line end.
pub fn line(text: fmt::Arguments) {
    // The console's writer cannot fail.
    let _ = Console.write_fmt(text);
    let _ = Console.write_str("\n");
}
