//! `baton bench switch`: what the machine's own operations take, under our policy and with a thread
//! per vCPU, which is the bare cost of KVM and of the host's scheduler.
//!
//! Each figure comes from whole runs of the test guest that do little else, made in turn and
//! reported as medians. Nothing is measured inside the paths themselves.

use std::fmt::Write;
use std::time::Duration;

use baton_config::SchedMode;
use baton_os::signals::StopSignals;
use baton_os::sys;
use baton_run::summary::RunSummary;
use guest_tests::GUEST_ELF;
use serde::Serialize;

use super::stats::Spread;
use super::{BenchError, args::SwitchArgs};
use operation::{SHORT, Sample};

pub use operation::Operation;

mod operation;

/// Form of the JSON.
const SCHEMA_VERSION: u32 = 1;
/// The longer of the two slices between which preemptions are weighed.
const LONG: Duration = Duration::from_millis(50);

/// What one operation takes, nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The operation.
    pub operation: Operation,
    /// Under our policy.
    pub baton_ns: Spread,
    /// Under our policy without what is measured, where there is such a thing.
    pub without_ns: Option<Spread>,
    /// With a thread per vCPU; none where that cannot be told.
    pub host_ns: Option<Spread>,
    /// Operations in all runs under our policy together.
    pub count: u64,
}

/// An operation that this host or pool cannot show.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The operation.
    pub operation: Operation,
    /// Why, in a sentence.
    pub reason: String,
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchReport {
    /// Grows when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Runs of each.
    pub runs: u32,
    /// One row an operation.
    pub results: Vec<Row>,
    /// Operations without a row.
    pub skipped: Vec<Skipped>,
}

/// Makes the runs and gives the report; what was made of it if the user wants to stop.
///
/// # Errors
/// If nothing can be run on this host.
pub fn measure(
    args: &SwitchArgs,
    signals: Option<&StopSignals>,
) -> Result<SwitchReport, BenchError> {
    let cpus = match &args.host_cpus {
        Some(cpus) => cpus.0.clone(),
        None => sys::affinity().map_err(BenchError::Affinity)?,
    };
    let (runs, time) = args.extent();
    let (mut results, mut skipped) = (Vec::new(), Vec::new());
    'all: for operation in Operation::ALL {
        if let Some(reason) = operation.refusal(cpus.len()) {
            skipped.push(Skipped { operation, reason });
            continue;
        }
        let (mut baton, mut without, mut host) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            if signals.is_some_and(StopSignals::take) {
                break 'all;
            }
            baton.extend(under_baton(operation, &cpus, time, signals)?);
            if let Some(config) = operation.without(&cpus, time) {
                without.extend(operation.sample(&baton_run::run(&config, GUEST_ELF, signals)?));
            }
            if operation.has_host() {
                let config = operation.config(SchedMode::Host, &cpus, time);
                host.extend(operation.sample(&baton_run::run(&config, GUEST_ELF, signals)?));
            }
        }
        results.push(Row {
            operation,
            baton_ns: Spread::of(baton.iter().map(|each| each.ns)),
            without_ns: spread(&without),
            host_ns: spread(&host),
            count: baton.iter().map(|each| each.count).sum(),
        });
    }
    Ok(SwitchReport {
        schema_version: SCHEMA_VERSION,
        runs,
        results,
        skipped,
    })
}

/// Of samples, if there are any.
fn spread(samples: &[Sample]) -> Option<Spread> {
    (!samples.is_empty()).then(|| Spread::of(samples.iter().map(|each| each.ns)))
}

/// One run of `operation` under our policy, or as many as it takes.
fn under_baton(
    operation: Operation,
    cpus: &[usize],
    time: Duration,
    signals: Option<&StopSignals>,
) -> Result<Option<Sample>, BenchError> {
    if operation == Operation::Preemption {
        return preemption(cpus, time, signals);
    }
    let config = operation.config(SchedMode::Baton, cpus, time);
    Ok(operation.sample(&baton_run::run(&config, GUEST_ELF, signals)?))
}

/// What short slices lose against long ones, for each preemption.
fn preemption(
    cpus: &[usize],
    time: Duration,
    signals: Option<&StopSignals>,
) -> Result<Option<Sample>, BenchError> {
    let run = |slice| {
        let mut config = Operation::Preemption.config(SchedMode::Baton, cpus, time);
        config.slice = slice;
        baton_run::run(&config, GUEST_ELF, signals)
    };
    let work = |summary: &RunSummary| {
        let guest = &summary.guests[0];
        let ran: u64 = guest
            .vcpus
            .iter()
            .map(|v| v.account.counters.runtime_ns)
            .sum();
        let preemptions: u64 = guest
            .vcpus
            .iter()
            .map(|v| v.account.counters.preemptions)
            .sum();
        (guest.workload.iterations, ran, preemptions)
    };
    let (long, long_ran, _) = work(&run(LONG)?);
    let (short, short_ran, preemptions) = work(&run(SHORT)?);
    // CPU time that the work of the short slices would have taken in long ones.
    let needed = u128::from(short) * u128::from(long_ran) / u128::from(long.max(1));
    let lost = u64::try_from(u128::from(short_ran).saturating_sub(needed)).unwrap_or(0);
    Ok(Sample::of(lost, preemptions))
}

/// The report as a table.
#[must_use]
pub fn render(report: &SwitchReport) -> String {
    let us = |spread: &Spread| {
        format!(
            "{:.1} ({:.1} to {:.1})",
            spread.median as f64 / 1e3,
            spread.min as f64 / 1e3,
            spread.max as f64 / 1e3
        )
    };
    let or_dash = |spread: &Option<Spread>| spread.as_ref().map_or("-".to_owned(), us);
    let mut text = format!(
        "Microseconds, medians of {} runs in turn (least to most)\n{:<48} {:>24} {:>24} {:>24} {:>6}\n",
        report.runs, "", "baton", "without it", "thread per vCPU", "ratio"
    );
    for row in &report.results {
        let ratio = match &row.host_ns {
            Some(host) if host.median > 0 => {
                format!("{:.2}", row.baton_ns.median as f64 / host.median as f64)
            }
            _ => "-".to_owned(),
        };
        // A string takes all that is written to it.
        let _ = writeln!(
            text,
            "{:<48} {:>24} {:>24} {:>24} {ratio:>6}",
            row.operation.what(),
            us(&row.baton_ns),
            or_dash(&row.without_ns),
            or_dash(&row.host_ns),
        );
    }
    for Skipped { operation, reason } in &report.skipped {
        let _ = writeln!(text, "{}: skipped: {reason}", operation.what());
    }
    text
}
