//! One run: from a configuration to the numbers at its end.

pub mod exit_status;
mod files;
mod host_memory;
mod run;
pub mod summary;
pub mod waits;

pub use run::{RunError, run};
