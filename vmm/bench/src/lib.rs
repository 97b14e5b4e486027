//! `baton bench lhp`: how much lock-holder preemption costs, and what Baton makes of it.
//!
//! [`matrix`] says which runs there are, [`rounds`] in which order they are made, [`cell`] makes one
//! and takes its numbers, with [`disturbance`] watching for others that want the same CPUs.
//! [`report`] draws the conclusions; [`table`], [`json`], [`csv`] and [`html`] show them. For the page,
//! [`scene`] records what happens to one critical section.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use baton_os::signals::StopSignals;
use baton_run::RunError;
use serde::Serialize;
use thiserror::Error;

use lhp::args::{self, LhpArgs, is_stdout};
use lhp::progress::Progress;
use lhp::report::{Plan, Report};
use lhp::rounds::{self, Extent};
use lhp::scene::{self, Scenes};
use lhp::{cell_run as cell, csv, html, json, table};

pub mod attacks;
pub mod lhp;
pub mod linux;
pub mod report;
pub mod switch;

/// A benchmark that could not be made or written.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Nothing runs here.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No CPUs.
    #[error("the host does not tell which CPUs there are ({0}): give --host-cpus")]
    Affinity(io::Error),
    /// Two outputs in one place.
    #[error("only one of --json and --csv can go to standard output: give a file for the other")]
    TwoToStdout,
    /// A page on a terminal.
    #[error("--html takes a file, as in --html report.html")]
    HtmlToStdout,
    /// A file.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Linux guests.
    #[error(transparent)]
    Linux(#[from] linux::LinuxBenchError),
    /// Hostile guests.
    #[error(transparent)]
    Attacks(#[from] attacks::AttackError),
    /// A report that is no JSON.
    #[error("cannot write the results as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What is left to do after a benchmark.
#[derive(Debug)]
pub struct Finished {
    /// For standard output.
    pub text: String,
    /// Whether it was complete and nothing failed.
    pub good: bool,
}

/// Runs `baton bench lhp` and writes its files.
///
/// # Errors
/// If nothing can be run on this host, or a file cannot be written.
pub fn lhp(args: &LhpArgs, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
    let plan = args.plan()?;
    // Better now than after minutes.
    for path in files(args) {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|source| failed_to_write(path, source))?;
    }
    let report = measure(&plan, signals)?;
    // A page without it is still a report.
    let shown = args.html.is_some() && !report.interrupted;
    let scenes = shown.then(|| scene::record(&plan.host_cpus, signals));
    Ok(Finished {
        text: write(args, &plan, &report, scenes.as_ref())?,
        good: report.is_good(),
    })
}

/// Runs `baton bench switch` and writes its file.
///
/// # Errors
/// If nothing can be run on this host, or the file cannot be written.
pub fn switch(
    args: &args::SwitchArgs,
    signals: Option<&StopSignals>,
) -> Result<String, BenchError> {
    let report = switch::measure(args, signals)?;
    put(&report, switch::render(&report), args.json.as_deref())
}

/// Runs `baton bench linux` and writes its file.
///
/// # Errors
/// If nothing can be run on this host, or the file cannot be written.
pub fn linux(args: &linux::LinuxArgs, signals: Option<&StopSignals>) -> Result<String, BenchError> {
    let report = linux::measure(args, signals)?;
    put(&report, linux::render(&report), args.json.as_deref())
}

/// Runs `baton bench attacks` and writes its file.
///
/// # Errors
/// If nothing can be run on this host, or the file cannot be written.
pub fn attacks(
    args: &attacks::AttacksArgs,
    signals: Option<&StopSignals>,
) -> Result<Finished, BenchError> {
    let report = attacks::measure(args, signals)?;
    Ok(Finished {
        text: put(&report, attacks::render(&report), args.json.as_deref())?,
        good: report.skipped.iter().all(|skipped| !skipped.failed),
    })
}

/// Writes `report` as JSON where the user wants it; returns what goes to standard output.
fn put(report: &impl Serialize, table: String, json: Option<&Path>) -> Result<String, BenchError> {
    let Some(path) = json else {
        return Ok(table);
    };
    let json = serde_json::to_string_pretty(report)? + "\n";
    if is_stdout(path) {
        return Ok(json);
    }
    fs::write(path, json).map_err(|source| failed_to_write(path, source))?;
    Ok(table)
}

/// Makes the runs of `plan`.
///
/// # Errors
/// If nothing can be run on this host.
pub fn measure(plan: &Plan, signals: Option<&StopSignals>) -> Result<Report, BenchError> {
    let cells = plan.cells();
    let extent = Extent {
        cells: cells.len(),
        rounds: plan.runs,
        limit: plan.limit,
    };
    let progress = Progress::on_stderr();
    let start = Instant::now();
    let measured = rounds::measure(
        extent,
        || start.elapsed(),
        |step| {
            let cell = &cells[step.cell];
            progress.show(step, cell, start.elapsed());
            cell::run(cell, &plan.host_cpus, plan.time, signals)
        },
    );
    progress.clear();
    let (kept, interrupted) = measured?;
    Ok(Report::new(plan, &kept, start.elapsed(), interrupted))
}

fn files(args: &LhpArgs) -> impl Iterator<Item = &Path> {
    [&args.json, &args.csv, &args.html]
        .into_iter()
        .filter_map(Option::as_deref)
        .filter(|path| !is_stdout(path))
}

/// Writes what the user wants; returns what goes to standard output: the tables, unless a program
/// is to read it.
fn write(
    args: &LhpArgs,
    plan: &Plan,
    report: &Report,
    scenes: Option<&Scenes>,
) -> Result<String, BenchError> {
    let mut text = None;
    let mut put = |path: &Option<PathBuf>, content: String| match path {
        None => Ok(()),
        Some(path) if is_stdout(path) => {
            text = Some(content);
            Ok(())
        }
        Some(path) => fs::write(path, content).map_err(|source| failed_to_write(path, source)),
    };
    put(&args.json, json::render(report)?)?;
    put(&args.csv, csv::render(report))?;
    put(&args.html, html::render(plan, report, scenes))?;
    Ok(text.unwrap_or_else(|| table::render(plan, report)))
}

fn failed_to_write(path: &Path, source: io::Error) -> BenchError {
    BenchError::Write {
        path: path.to_owned(),
        source,
    }
}
