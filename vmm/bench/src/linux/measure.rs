//! The runs of `baton bench linux`.

use baton_os::signals::StopSignals;

use super::args::LinuxArgs;
use super::guest::{self, GuestOutput, GuestResults};
use super::guest_run::GuestRun;
use super::plan::LinuxPlan;
use super::report::LinuxReport;
use crate::error::BenchError;
use crate::flags::host_cpus;

/// Number of guests that are started for one run before the benchmark goes on without its results.
const ATTEMPTS: u32 = 3;

/// Makes all runs: in each round, the policies of each load side by side. If the user stops the benchmark, the
/// report has the runs that were complete by then.
pub(super) fn measure(
    args: &LinuxArgs,
    signals: Option<&StopSignals>,
) -> Result<LinuxReport, BenchError> {
    let cpus = host_cpus(args.host_cpus.as_ref())?;
    let plan = LinuxPlan::new(args)?;
    let mut runs = Vec::new();
    let mut last_output = String::new();
    'all: for round in 0..args.runs {
        for cell in &plan.cells {
            let Some(kernel) = plan.kernel(cell) else {
                continue;
            };
            let mut restarts = 0;
            let results = loop {
                if signals.is_some_and(StopSignals::take) {
                    break 'all;
                }
                match guest::run(args, &cpus, kernel, cell)? {
                    GuestOutput::Complete(results) => break results,
                    GuestOutput::Incomplete(text) => last_output = text,
                }
                restarts += 1;
                if restarts == ATTEMPTS {
                    break GuestResults::default();
                }
            };
            let run = GuestRun::new(round, cell.clone(), restarts, results);
            report_progress(args, &run);
            runs.push(run);
        }
    }
    if runs.iter().all(|run| run.works.is_empty()) {
        return Err(BenchError::NoResults(last_output));
    }
    Ok(LinuxReport::new(args, plan, cpus, runs))
}

fn report_progress(args: &LinuxArgs, run: &GuestRun) {
    baton_os::say!(
        "round {} of {}, {}, {}, {}: {} works, {} restarts",
        run.round + 1,
        args.runs,
        run.cell.load,
        run.cell.kernel,
        run.cell.policy,
        run.works.len(),
        run.restarts
    );
}
