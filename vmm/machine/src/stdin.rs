//! Standard input, for the serial port of a guest.

mod serial_input;
mod terminal;

pub use serial_input::DeviceThread;
