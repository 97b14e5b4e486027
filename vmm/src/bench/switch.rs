//! `baton bench switch`: what the machine's own operations take, under our policy and with a thread
//! per vCPU, which is the bare cost of KVM and of the host's scheduler.
//!
//! Each figure comes from whole runs of the test guest that do little else, made in turn and
//! reported as medians. Nothing is measured inside the paths themselves.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::stats::Spread;
use super::{BenchError, args::SwitchArgs};
use crate::config::{GuestConfig, RunConfig, SchedMode};
use crate::run;
use crate::signals::StopSignals;
use crate::summary::RunSummary;
use crate::sys;

/// Form of the JSON.
const SCHEMA_VERSION: u32 = 1;
/// Timer period of the halts.
const PERIOD_NS: u64 = 1_000_000;
/// The slices between which preemptions are weighed.
const SHORT: Duration = Duration::from_micros(500);
const LONG: Duration = Duration::from_millis(50);

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A port write to user space, a decision, and back.
    Doorbell,
    /// A vCPU wakes another and goes idle: from one to the other on one host CPU.
    Switch,
    /// The same with a host CPU for each: a kick.
    Kick,
    /// A halted vCPU's timer is due: until it runs.
    HaltWake,
    /// A vCPU's turn is over: until the next one runs.
    Preemption,
}

impl Operation {
    const ALL: [Self; 5] = [
        Self::Doorbell,
        Self::Switch,
        Self::Kick,
        Self::HaltWake,
        Self::Preemption,
    ];

    const fn what(self) -> &'static str {
        match self {
            Self::Doorbell => "doorbell: exit, decision, entry (CPU time)",
            Self::Switch => "switch: wake a sibling, go idle, same host CPU",
            Self::Kick => "kick: wake a sibling, go idle, another host CPU",
            Self::HaltWake => "halt: timer due to guest running",
            Self::Preemption => "preemption: one vCPU off, the next on",
        }
    }

    /// The guest that does little else, in a run under `sched` for `time`.
    fn config(self, sched: SchedMode, cpus: &[usize], time: Duration) -> RunConfig {
        let seconds = time.as_secs_f64();
        let count = (time.as_nanos() as u64 / PERIOD_NS).max(1);
        let (vcpus, text) = match self {
            Self::Doorbell => (1, format!("workload=doorbell-storm seconds={seconds}")),
            Self::Switch | Self::Kick => (2, format!("workload=pingpong seconds={seconds}")),
            Self::HaltWake => (1, format!("workload=halt count={count} period=1ms")),
            Self::Preemption => (2, format!("workload=hog seconds={seconds}")),
        };
        let mut guest = GuestConfig::new("guest").with_cpus(vcpus);
        guest.cmdline = format!("{text} hints=on");
        let several = self == Self::Kick && cpus.len() > 1;
        if several {
            guest.host_cpus = cpus.iter().take(2).map(|cpu| Some(vec![*cpu])).collect();
        }
        RunConfig {
            guests: vec![guest],
            host_cpus: cpus[..if several { 2 } else { 1 }].to_vec(),
            sched,
            slice: SHORT,
            quiet: true,
            ..RunConfig::default()
        }
    }

    /// Nanoseconds an operation in a run; `None` if it did none.
    fn cost(self, summary: &RunSummary) -> Option<u64> {
        let guest = &summary.guests[0];
        let per = |ns: u64, count: u64| ns.checked_div(count);
        match self {
            Self::Doorbell => {
                let sum = |f: fn(&crate::summary::VcpuSummary) -> u64| {
                    guest.vcpus.iter().map(f).sum::<u64>()
                };
                per(
                    sum(|v| v.ran_ns),
                    sum(|v| v.exits.doorbells + v.exits.nonsense),
                )
            }
            // A round trip is two.
            Self::Switch | Self::Kick => {
                per(guest.workload.elapsed_ns, 2 * guest.workload.iterations)
            }
            Self::HaltWake => per(guest.workload.elapsed_ns, guest.workload.iterations)
                .map(|each| each.saturating_sub(PERIOD_NS)),
            Self::Preemption => None,
        }
    }
}

/// What one operation takes, nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The operation.
    pub operation: Operation,
    /// Under our policy.
    pub baton_ns: Spread,
    /// With a thread per vCPU; none where that cannot be told.
    pub host_ns: Option<Spread>,
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
    let mut results = Vec::new();
    'all: for operation in Operation::ALL {
        let (mut baton, mut host) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            if signals.is_some_and(StopSignals::take) {
                break 'all;
            }
            let once = |sched| run::run(&operation.config(sched, &cpus, time), signals);
            if operation == Operation::Preemption {
                baton.extend(preemption(&cpus, time, signals)?);
                continue;
            }
            baton.extend(operation.cost(&once(SchedMode::Baton)?));
            host.extend(operation.cost(&once(SchedMode::Host)?));
        }
        results.push(Row {
            operation,
            baton_ns: Spread::of(baton),
            host_ns: (!host.is_empty()).then(|| Spread::of(host)),
        });
    }
    Ok(SwitchReport {
        schema_version: SCHEMA_VERSION,
        runs,
        results,
    })
}

/// What short slices lose against long ones, for each preemption.
fn preemption(
    cpus: &[usize],
    time: Duration,
    signals: Option<&StopSignals>,
) -> Result<Option<u64>, BenchError> {
    let run = |slice| {
        let mut config = Operation::Preemption.config(SchedMode::Baton, cpus, time);
        config.slice = slice;
        run::run(&config, signals)
    };
    let work = |summary: &RunSummary| {
        let guest = &summary.guests[0];
        let ran: u64 = guest.vcpus.iter().map(|v| v.ran_ns).sum();
        let preemptions: u64 = guest.vcpus.iter().map(|v| v.preemptions).sum();
        (guest.workload.iterations, ran, preemptions)
    };
    let (long, long_ran, _) = work(&run(LONG)?);
    let (short, short_ran, preemptions) = work(&run(SHORT)?);
    // CPU time that the work of the short slices would have taken in long ones.
    let needed = u128::from(short) * u128::from(long_ran) / u128::from(long.max(1));
    let lost = u64::try_from(u128::from(short_ran).saturating_sub(needed)).unwrap_or(0);
    Ok(lost.checked_div(preemptions))
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
    let mut text = format!(
        "Microseconds, medians of {} runs in turn (least to most)\n{:<48} {:>24} {:>24} {:>6}\n",
        report.runs, "", "baton", "thread per vCPU", "ratio"
    );
    for row in &report.results {
        let (host, ratio) = match &row.host_ns {
            Some(host) if host.median > 0 => (
                us(host),
                format!("{:.2}", row.baton_ns.median as f64 / host.median as f64),
            ),
            Some(host) => (us(host), "-".to_owned()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        // A string takes all that is written to it.
        let _ = writeln!(
            text,
            "{:<48} {:>24} {host:>24} {ratio:>6}",
            row.operation.what(),
            us(&row.baton_ns)
        );
    }
    text
}
