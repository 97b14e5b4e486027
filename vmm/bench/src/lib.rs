//! `baton bench`: the four benchmarks. Each has a directory of its own and uses none of the others.
//!
//! - [`lhp`]: lock-holder preemption, by lock, load and policy;
//! - [`switch`]: Baton's own operations, such as a switch between two vCPUs;
//! - [`linux`]: work in Linux guests, with and without our patches;
//! - [`attacks`]: what a hostile guest takes from its neighbour.
//!
//! They share flags (`flags`), their end ([`Finished`], [`BenchError`]), the parts of reports
//! ([`report`]), a directory for files (`scratch_dir`), and runs whose guests are processes of their own
//! ([`process_run`]).

pub mod attacks;
mod command;
mod error;
mod finished;
mod flags;
pub mod lhp;
pub mod linux;
pub mod process_run;
pub mod report;
mod scratch_dir;
mod status_line;
pub mod switch;

pub use command::BenchCommand;
pub use error::BenchError;
pub use finished::Finished;
