//! Console output: from guests to stdout without ever making a vCPU wait.

mod printable;
mod thread;

pub use thread::{ConsoleCount, ConsolePort, ConsoleThread, LineBuffer};
