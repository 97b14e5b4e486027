//! `baton bench attacks`: what a hostile guest takes from its neighbour.
//!
//! A victim with a hard reservation computes, in turn beside an idle guest and beside a guest of the same
//! shape that attacks. Each run is a process of its own, so that the CPU time that the kernel accounted to
//! the process can be compared with the CPU time that was charged to the guests.

use baton_os::signals::StopSignals;

use crate::error::BenchError;
use crate::finished::{Finished, write_json};

pub use args::AttacksArgs;
pub use attack::{Attack, BUDGET, Neighbour, PERIOD};
pub use error::AttackError;
pub use figures::AttackFigures;
pub use report::AttacksReport;
pub use victim_run::{VictimRun, run_victim};

mod args;
mod attack;
mod error;
mod figures;
mod measure;
mod perf;
mod process;
mod report;
mod scratch;
mod table;
mod victim_run;

/// Runs `baton bench attacks` and writes its file.
///
/// # Errors
/// If nothing can be run on this host, or the file cannot be written.
pub fn run(args: &AttacksArgs, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
    let report = measure::measure(args, signals)?;
    let table = table::render(&report);
    Ok(Finished {
        text: write_json(&report, table, args.json.as_deref())?,
        good: report.skipped.iter().all(|skipped| !skipped.failed),
    })
}

#[cfg(test)]
mod tests;
