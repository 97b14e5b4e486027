//! `baton bench switch`: the time that Baton's own operations take, under our policy and with a thread for
//! each vCPU. The second is the bare cost of KVM and of the host's scheduler. Under our policy, vCPUs run in the form
//! that is the default on this host, on threads of their own, and as processes of a pool.
//!
//! Each figure comes from whole runs of a test guest that does little but this operation. The runs are
//! made in turn, and medians are reported. Nothing is measured inside the code paths themselves.

use baton_os::signals::StopSignals;

use crate::error::BenchError;
use crate::finished::{Finished, write_json};

pub use args::SwitchArgs;
pub use operation::Operation;
pub use report::SwitchReport;

mod args;
mod form;
mod measure;
mod operation;
mod report;
mod table;

/// Runs `baton bench switch` and writes its file.
///
/// # Errors
/// If nothing can be run on this host, or the file cannot be written.
pub fn run(args: &SwitchArgs, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
    let report = measure::measure(args, signals)?;
    let text = write_json(&report, table::render(&report), args.json.as_deref())?;
    Ok(Finished { text, good: true })
}
