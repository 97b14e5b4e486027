//! `baton bench linux`: what proxying does for real Linux guests.
//!
//! The same work runs in a Linux guest under three policies, at several loads, in turn; each run is a
//! guest of its own that boots, does all works and ends. The guest tells what it did in lines of the
//! form `bench: WORK done N in_ns T [max_wait_ns W] [median_wait_ns M] ...` on its console;
//! `scripts/linux-bench` brings such a guest.

use std::io;

use baton_os::signals::StopSignals;
use baton_os::sys;
use serde::Serialize;
use thiserror::Error;

use crate::report::stats::{self, Spread};
pub use args::LinuxArgs;
use args::{Load, Policy};
use guest::{Figure, Outcome};

mod args;
mod guest;
mod table;

pub use table::render;

/// Form of the JSON.
const SCHEMA_VERSION: u32 = 1;
/// A guest that says nothing is started so often before the run goes on without it.
const ATTEMPTS: u32 = 3;

/// A benchmark that could not be made.
#[derive(Debug, Error)]
pub enum LinuxBenchError {
    /// This program cannot start itself.
    #[error("cannot start baton run: {0}")]
    Start(io::Error),
    /// No CPUs.
    #[error("the host does not tell which CPUs there are ({0}): give --host-cpus")]
    Affinity(io::Error),
    /// No guest has ever said anything.
    #[error("no guest has told what it did; the last said:\n{0}")]
    Silent(String),
}

/// All rows.
#[derive(Debug, Serialize)]
pub struct LinuxReport {
    schema_version: u32,
    runs: u32,
    results: Vec<Row>,
    /// Guests that died or said nothing and were started again, by policy.
    restarts: Vec<(Policy, u32)>,
}

/// One work at one load under one policy.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    load: Load,
    policy: Policy,
    vcpus: usize,
    host_cpus: usize,
    runs: usize,
    /// Work done per second of real time.
    per_second: Spread,
    /// Longest wait of each run, ns.
    max_wait_ns: Option<Spread>,
    /// Median wait of each run, ns.
    median_wait_ns: Option<Spread>,
    /// Median of the ratios to [`Policy::Host`] in the same round.
    ratio_to_host: Option<f64>,
    /// The same for the longest wait.
    wait_ratio_to_host: Option<f64>,
    /// The same for the median wait.
    median_wait_ratio_to_host: Option<f64>,
}

/// Runs the benchmark.
///
/// # Errors
/// If nothing can be run, as [`LinuxBenchError`].
pub fn measure(
    args: &LinuxArgs,
    signals: Option<&StopSignals>,
) -> Result<LinuxReport, LinuxBenchError> {
    let cpus = match &args.host_cpus {
        Some(list) => list.0.clone(),
        None => sys::affinity().map_err(LinuxBenchError::Affinity)?,
    };
    let mut outcomes = Vec::new();
    let mut silent = String::new();
    'all: for round in 0..args.runs {
        for &load in &args.loads {
            for &policy in &args.policies {
                let mut restarts = 0;
                let figures = loop {
                    if signals.is_some_and(StopSignals::take) {
                        break 'all;
                    }
                    match guest::run(args, &cpus, load, policy)? {
                        Outcome::Told(figures) => break figures,
                        Outcome::Silent(text) => silent = text,
                    }
                    restarts += 1;
                    if restarts == ATTEMPTS {
                        break Vec::new();
                    }
                };
                baton_os::say!(
                    "round {} of {}, {load}, {policy}: {} works, {restarts} restarts",
                    round + 1,
                    args.runs,
                    figures.len()
                );
                outcomes.push(Run {
                    round,
                    load,
                    policy,
                    restarts,
                    figures,
                });
            }
        }
    }
    if outcomes.iter().all(|run| run.figures.is_empty()) {
        return Err(LinuxBenchError::Silent(silent));
    }
    Ok(report(args, cpus.len(), &outcomes))
}

/// One guest's life.
struct Run {
    round: u32,
    load: Load,
    policy: Policy,
    restarts: u32,
    figures: Vec<Figure>,
}

fn report(args: &LinuxArgs, host_cpus: usize, runs: &[Run]) -> LinuxReport {
    let figure = |round, load, policy, work: &str| {
        runs.iter()
            .find(|run| run.round == round && run.load == load && run.policy == policy)
            .and_then(|run| run.figures.iter().find(|figure| figure.work == work))
    };
    let mut results = Vec::new();
    for work in &args.works {
        for &load in &args.loads {
            for &policy in &args.policies {
                let pairs: Vec<(&Figure, Option<&Figure>)> = (0..args.runs)
                    .filter_map(|round| {
                        let own = figure(round, load, policy, work)?;
                        Some((own, figure(round, load, Policy::Host, work)))
                    })
                    .collect();
                if pairs.is_empty() {
                    continue;
                }
                let ratio = |value: fn(&Figure) -> Option<u64>| {
                    let ratios: Vec<f64> = pairs
                        .iter()
                        .filter_map(|(own, host)| stats::ratio(value(own)?, value((*host)?)?))
                        .collect();
                    (!ratios.is_empty()).then(|| stats::median(ratios))
                };
                let waits = |value: fn(&Figure) -> Option<u64>| {
                    let waits: Vec<u64> = pairs.iter().filter_map(|(own, _)| value(own)).collect();
                    (!waits.is_empty()).then(|| Spread::of(waits))
                };
                results.push(Row {
                    work: work.clone(),
                    load,
                    policy,
                    vcpus: load.vcpus(host_cpus),
                    host_cpus,
                    runs: pairs.len(),
                    per_second: Spread::of(pairs.iter().map(|(own, _)| own.per_second())),
                    max_wait_ns: waits(|figure| figure.max_wait_ns),
                    median_wait_ns: waits(|figure| figure.median_wait_ns),
                    ratio_to_host: ratio(|figure| Some(figure.per_second())),
                    wait_ratio_to_host: ratio(|figure| figure.max_wait_ns),
                    median_wait_ratio_to_host: ratio(|figure| figure.median_wait_ns),
                });
            }
        }
    }
    let restarts = args
        .policies
        .iter()
        .map(|&policy| {
            let own = runs.iter().filter(|run| run.policy == policy);
            (policy, own.map(|run| run.restarts).sum())
        })
        .collect();
    LinuxReport {
        schema_version: SCHEMA_VERSION,
        runs: args.runs,
        results,
        restarts,
    }
}

#[cfg(test)]
mod tests;
