//! The runs of `baton bench linux`.

use baton_os::signals::StopSignals;

use super::args::LinuxArgs;
use super::axes::{LinuxLoad, LinuxPolicy};
use super::figures::WorkFigures;
use super::guest::{self, GuestOutput};
use super::report::{GuestRun, LinuxReport};
use crate::error::BenchError;
use crate::flags::host_cpus;

/// Number of guests that are started for one run before the benchmark goes on without its results.
const ATTEMPTS: u32 = 3;

/// Makes all runs. If the user stops the benchmark, the report has the runs that were complete by then.
pub(super) fn measure(
    args: &LinuxArgs,
    signals: Option<&StopSignals>,
) -> Result<LinuxReport, BenchError> {
    let cpus = host_cpus(args.host_cpus.as_ref())?;
    let mut runs = Vec::new();
    let mut last_output = String::new();
    'all: for (round, load, policy) in order(args) {
        let mut restarts = 0;
        let figures = loop {
            if signals.is_some_and(StopSignals::take) {
                break 'all;
            }
            match guest::run(args, &cpus, load, policy)? {
                GuestOutput::Complete(figures) => break figures,
                GuestOutput::Incomplete(text) => last_output = text,
            }
            restarts += 1;
            if restarts == ATTEMPTS {
                break Vec::new();
            }
        };
        report_progress(args, (round, load, policy), &figures, restarts);
        runs.push(GuestRun {
            round,
            load,
            policy,
            restarts,
            figures,
        });
    }
    if runs.iter().all(|run| run.figures.is_empty()) {
        return Err(BenchError::NoResults(last_output));
    }
    Ok(LinuxReport::new(args, cpus.len(), &runs))
}

/// All runs: in each round, the policies of each load side by side.
fn order(args: &LinuxArgs) -> impl Iterator<Item = (u32, LinuxLoad, LinuxPolicy)> {
    (0..args.runs).flat_map(move |round| {
        let loads = args.loads.iter();
        loads.flat_map(move |&load| {
            let policies = args.policies.iter();
            policies.map(move |&policy| (round, load, policy))
        })
    })
}

fn report_progress(
    args: &LinuxArgs,
    (round, load, policy): (u32, LinuxLoad, LinuxPolicy),
    figures: &[WorkFigures],
    restarts: u32,
) {
    baton_os::say!(
        "round {} of {}, {load}, {policy}: {} works, {restarts} restarts",
        round + 1,
        args.runs,
        figures.len()
    );
}
