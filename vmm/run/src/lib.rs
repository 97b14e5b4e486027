//! One run: from a configuration to the numbers at its end.
//!
//! | file | idea |
//! |---|---|
//! | `run.rs` | the run from start to end |
//! | `host_cpus.rs`, `host_memory.rs`, `files.rs` | whether the host has what the run needs |
//! | `cpu_owner.rs` | which process the host CPUs belong to |
//! | `isolation.rs` | keeping other programs off the host CPUs |
//! | `rt_throttling.rs` | whether the kernel leaves executors what is promised |
//! | `guests.rs` | creating the guests |
//! | `guest_support.rs` | what guests need beside a pool |
//! | `vm.rs` | one guest in a process of its own, run by the pool of another process |
//! | `console_output.rs` | where guests print to |
//! | `restart.rs`, `backoff.rs` | guests that start again |
//! | `starts_again.rs` | which ends are followed by a new start |
//! | `restart_pool.rs` | what guests that start again need of their pool |
//! | `run_end.rs` | what ends a run |
//! | `shutdown.rs` | how the guests that still run are ended |
//! | `summary.rs`, `waits.rs` | the numbers at the end |
//! | `exit_status.rs` | the status with which `baton` ends |
//! | `error.rs` | why a run could not be started |

mod backoff;
mod console_output;
pub mod cpu_owner;
mod error;
pub mod exit_status;
pub mod files;
mod guest_support;
mod guests;
pub mod host_cpus;
mod host_memory;
mod isolation;
mod restart;
mod restart_pool;
mod rt_throttling;
mod run;
mod run_end;
mod shutdown;
mod starts_again;
pub mod summary;
mod vm;
pub mod waits;

pub use error::RunError;
pub use run::run;
pub use vm::{PoolError, enter_sandbox, vm};
