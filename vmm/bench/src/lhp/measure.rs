//! The course of the benchmark, from its flags to its outputs.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::time::Instant;

use baton_os::signals::StopSignals;
use baton_run::RunError;

use super::args::LhpArgs;
use super::plan::Plan;
use super::rounds::{self, Extent};
use super::scene::{self, Scenes};
use super::schema::LhpReport;
use super::{csv, html, json, lock_run, progress, table};
use crate::error::BenchError;
use crate::finished::Finished;
use crate::flags::is_stdout;
use crate::status_line::StatusLine;

/// Runs `baton bench lhp` and writes its files.
///
/// # Errors
/// If nothing can be run on this host, or a file cannot be written.
pub fn run(args: &LhpArgs, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
    let plan = args.plan()?;
    // A path that cannot be written is reported now rather than after minutes.
    for path in args.files() {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(BenchError::write(path))?;
    }
    let report = measure(&plan, signals)?;
    let has_scenes = args.html.is_some() && !report.interrupted;
    let scenes = has_scenes.then(|| scene::record(&plan.host_cpus, signals));
    Ok(Finished {
        text: write(args, &plan, &report, scenes.as_ref())?,
        good: report.is_good(),
    })
}

/// Makes the runs of `plan`.
fn measure(plan: &Plan, signals: Option<&StopSignals>) -> Result<LhpReport, RunError> {
    let cells = plan.cells();
    let extent = Extent {
        cells: cells.len(),
        rounds: plan.runs,
        limit: plan.limit,
    };
    let status = StatusLine::on_stderr();
    let start = Instant::now();
    let measured = rounds::measure(
        extent,
        || start.elapsed(),
        |step| {
            let cell = &cells[step.cell];
            status.show(&progress::line(step, cell, start.elapsed()));
            lock_run::run(cell, &plan.host_cpus, plan.time, signals)
        },
    );
    status.clear();
    let (runs, interrupted) = measured?;
    Ok(LhpReport::new(plan, &runs, start.elapsed(), interrupted))
}

/// Writes the files. Returns the text for standard output: the output that was directed there, or else the
/// tables.
fn write(
    args: &LhpArgs,
    plan: &Plan,
    report: &LhpReport,
    scenes: Option<&Scenes>,
) -> Result<String, BenchError> {
    let mut text = None;
    let mut put = |path: &Option<PathBuf>, content: String| match path {
        None => Ok(()),
        Some(path) if is_stdout(path) => {
            text = Some(content);
            Ok(())
        }
        Some(path) => fs::write(path, content).map_err(BenchError::write(path)),
    };
    put(&args.json, json::render(report)?)?;
    put(&args.csv, csv::render(report))?;
    put(&args.html, html::render(plan, report, scenes))?;
    Ok(text.unwrap_or_else(|| table::render(plan, report)))
}
