//! One run: from a configuration to the numbers at its end.
//!
//! | file | idea |
//! |---|---|
//! | `run.rs` | the run from start to end |
//! | `host_cpus.rs`, `host_memory.rs`, `files.rs` | whether the host has what the run needs |
//! | `cpu_owner.rs` | which process the host CPUs belong to |
//! | `guests.rs` | creating the guests |
//! | `console_output.rs` | where guests print to |
//! | `run_end.rs` | what ends a run |
//! | `summary.rs`, `waits.rs` | the numbers at the end |
//! | `exit_status.rs` | the status with which `baton` ends |
//! | `error.rs` | why a run could not be started |

mod console_output;
mod cpu_owner;
mod error;
pub mod exit_status;
mod files;
mod guests;
mod host_cpus;
mod host_memory;
mod run;
mod run_end;
pub mod summary;
pub mod waits;

pub use error::RunError;
pub use run::run;
