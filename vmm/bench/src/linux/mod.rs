//! `baton bench linux`: what proxying does for real Linux guests.
//!
//! The same works run in Linux guests with several kernels, under several policies and at several loads, in turn. Each
//! run is a guest of its own that boots, does all works and ends. The guest prints its results on its console, in lines of
//! the form `bench: WORK done N in_ns T [max_wait_ns W] [median_wait_ns M] ...`; `scripts/linux-bench`
//! builds such a guest.

use baton_os::signals::StopSignals;

use crate::error::BenchError;
use crate::finished::{Finished, write_json};

pub use args::LinuxArgs;
pub use axes::{LinuxLoad, LinuxPolicy, Work};
pub use kernels::NamedKernel;
pub use report::LinuxReport;

mod args;
mod axes;
mod figures;
mod guest;
mod guest_run;
mod kernels;
mod measure;
mod plan;
mod report;
mod row;
mod table;

/// Runs `baton bench linux` and writes its file.
///
/// # Errors
/// If no guest can be started or none reports its results, or the file cannot be written.
pub fn run(args: &LinuxArgs, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
    let report = measure::measure(args, signals)?;
    let text = write_json(&report, table::render(&report), args.json.as_deref())?;
    Ok(Finished { text, good: true })
}

#[cfg(test)]
mod tests;
