//! `baton bench attacks`: what a hostile guest takes from its neighbour.
//!
//! A victim with a hard reservation computes, in turn beside an idle guest and beside the same guest when
//! it attacks. Each run is a process of its own, so that what the kernel has accounted for it can be
//! compared with what was charged to the guests.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_os::signals::StopSignals;
use baton_os::sys;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::BenchError;
use crate::report::stats::{self, Spread};
pub use args::AttacksArgs;
pub use attack::{Attack, BUDGET, Beside, PERIOD};
pub use figures::Figures;
use process::Privileges;
use scratch::Scratch;

mod args;
mod attack;
mod figures;
mod perf;
mod process;
mod scratch;
mod table;

pub use table::render;

/// Form of the JSON.
const SCHEMA_VERSION: u32 = 1;
/// Host CPUs of the pool unless the user names others.
const POOL: usize = 2;
/// This program, also when its file has been replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// Flags of a run whose guests have reservations though the host notices halts late.
const LATE_HALTS: &[&str] = &["--late-halts", "allow"];
/// How many of its last lines a run that failed is quoted with.
const LAST_LINES: usize = 3;

/// A run that could not be made.
#[derive(Debug, Error)]
pub enum AttackError {
    /// A program that does not start.
    #[error("cannot start baton run: {0}")]
    Start(io::Error),
    /// A file.
    #[error("cannot write {}: {source}", path.display())]
    Scratch {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A run that this host cannot make.
    #[error("{0}")]
    Refused(String),
    /// A run that went wrong.
    #[error("{0}")]
    Failed(String),
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct AttacksReport {
    /// Grows when a field changes its meaning or goes.
    pub schema_version: u32,
    /// Runs of each attack, and as many beside an idle guest.
    pub runs: u32,
    /// How long the victim works in each, nanoseconds.
    pub run_ns: u64,
    /// The pool.
    pub host_cpus: Vec<usize>,
    /// One row an attack.
    pub results: Vec<Row>,
    /// Attacks without a row.
    pub skipped: Vec<Skipped>,
}

/// What an attack does.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The attack.
    pub attack: Attack,
    /// Runs that count.
    pub runs: usize,
    /// Beside a guest of the same shape that is idle.
    pub beside_idle: Side,
    /// Beside the attacker.
    pub beside_attacker: Side,
    /// The victim's work beside the attacker, relative to that beside the idle guest in the same round;
    /// median.
    pub work_ratio: Option<f64>,
    /// The same for its work per CPU second that it was charged.
    pub work_per_cpu_ratio: Option<f64>,
}

/// The runs beside one guest.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// CPU time that the guest beside the victim was charged, nanoseconds.
    pub attacker_charged_ns: Spread,
    /// CPU time of the process but what other guests were charged, nanoseconds.
    pub attacker_used_ns: Spread,
    /// CPU time that nobody was charged, nanoseconds.
    pub uncharged_ns: Spread,
    /// The victim's charge, of what it was promised; median.
    pub received: f64,
    /// The victim's deadlines that were missed.
    pub misses: Spread,
    /// The victim's exits.
    pub exits: Spread,
    /// What the victim computed, iterations.
    pub work: Spread,
}

/// An attack that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The attack.
    pub attack: Attack,
    /// Why, in a sentence.
    pub reason: String,
    /// Whether something went wrong, rather than this host not able to show it.
    pub failed: bool,
}

/// Makes the runs and gives the report; what was made of it if the user wants to stop.
///
/// # Errors
/// If nothing can be run on this host.
pub fn measure(
    args: &AttacksArgs,
    signals: Option<&StopSignals>,
) -> Result<AttacksReport, BenchError> {
    let pool = match &args.host_cpus {
        Some(cpus) => cpus.0.clone(),
        None => {
            let all = sys::affinity().map_err(BenchError::Affinity)?;
            all.into_iter().take(POOL).collect()
        }
    };
    let (runs, time) = args.extent();
    let attacks = args.chosen();
    let mut pairs = vec![Vec::new(); attacks.len()];
    let mut skipped: Vec<Skipped> = Vec::new();
    'all: for round in 0..runs {
        for (&attack, pairs) in attacks.iter().zip(&mut pairs) {
            if skipped.iter().any(|skipped| skipped.attack == attack) {
                continue;
            }
            tell(&format!("round {} of {runs}: {attack}", round + 1));
            let pair = pair(attack, round, &pool, time);
            // A signal from the terminal has ended the run, too, which then says nothing.
            if signals.is_some_and(StopSignals::take) {
                break 'all;
            }
            match pair {
                Ok(pair) => pairs.push(pair),
                Err(error @ (AttackError::Start(_) | AttackError::Scratch { .. })) => {
                    return Err(error.into());
                }
                Err(error) => skipped.push(Skipped {
                    attack,
                    failed: matches!(error, AttackError::Failed(_)),
                    reason: error.to_string(),
                }),
            }
        }
    }
    tell("");
    let measured = attacks.iter().zip(&pairs);
    let measured = measured.filter(|(attack, pairs)| {
        !pairs.is_empty() && skipped.iter().all(|skipped| skipped.attack != **attack)
    });
    Ok(AttacksReport {
        schema_version: SCHEMA_VERSION,
        runs,
        run_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        host_cpus: pool,
        results: measured
            .map(|(&attack, pairs)| row(attack, pairs))
            .collect(),
        skipped,
    })
}

/// A run beside the idle guest and one beside the attacker, in alternating order.
fn pair(
    attack: Attack,
    round: u32,
    pool: &[usize],
    time: Duration,
) -> Result<[Figures; 2], AttackError> {
    let run = |beside| {
        let run = run(Path::new(SELF), attack, beside, pool, time)?;
        Ok::<_, AttackError>(run.figures)
    };
    if round.is_multiple_of(2) {
        let idle = run(Beside::Idle)?;
        Ok([idle, run(Beside::Attacker)?])
    } else {
        let attacked = run(Beside::Attacker)?;
        Ok([run(Beside::Idle)?, attacked])
    }
}

/// A run that came to a good end.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its figures.
    pub figures: Figures,
    /// Its summary, as `--summary json` gives it.
    pub summary: Value,
}

/// Runs the victim beside one guest with `program`, which is `baton`. The victim works for `time` on the
/// second host CPU of `pool`, or on the only one.
///
/// # Errors
/// If the run cannot be made here, or did not come to a good end.
pub fn run(
    program: &Path,
    attack: Attack,
    beside: Beside,
    pool: &[usize],
    time: Duration,
) -> Result<Run, AttackError> {
    let (privileges, flags) = match attack.is_without_perf_events() {
        true => (
            perf::without_events().map_err(AttackError::Refused)?,
            LATE_HALTS,
        ),
        false => (Privileges::All, &[][..]),
    };
    let scratch = Scratch::new()?;
    let guests = scratch.prepare(attack, &attack.guests(beside, pool, time))?;
    let guests = guests.to_string_lossy();
    let mut words = vec!["run", &*guests, "--summary", "json", "--control", "off"];
    words.extend(flags);
    let ended = process::run(program, &words, privileges).map_err(AttackError::Start)?;
    let failed = |why: String| AttackError::Failed(format!("{why}: {}", last_lines(&ended.stderr)));
    let summary = figures::summary(&ended.stdout)
        .ok_or_else(|| failed("a run has printed no summary".to_owned()))?;
    let figures = Figures::of(&summary, ended.cpu_ns)
        .ok_or_else(|| failed("the summary of a run lacks a figure".to_owned()))?;
    match &figures.attacker_failure {
        _ if !figures.victim_ok => Err(failed("the victim has failed".to_owned())),
        Some(end) if attack.is_impossible_on_some_hosts() => {
            Err(AttackError::Refused(format!("the attacker's guest {end}")))
        }
        Some(end) => Err(failed(format!("the attacker's guest {end}"))),
        None if !ended.status.success() => Err(failed("a run has failed".to_owned())),
        None => Ok(Run { figures, summary }),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join(" ")
}

fn row(attack: Attack, pairs: &[[Figures; 2]]) -> Row {
    let ratio = |value: fn(&Figures) -> Option<f64>| {
        let ratios: Vec<f64> = pairs
            .iter()
            .filter_map(|[idle, attacked]| Some(value(attacked)? / value(idle)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        (!ratios.is_empty()).then(|| stats::median(ratios))
    };
    Row {
        attack,
        runs: pairs.len(),
        beside_idle: side(pairs.iter().map(|[idle, _]| idle)),
        beside_attacker: side(pairs.iter().map(|[_, attacked]| attacked)),
        work_ratio: ratio(|run| Some(run.victim_work as f64)),
        work_per_cpu_ratio: ratio(|run| {
            (run.victim_charged_ns > 0)
                .then(|| run.victim_work as f64 / run.victim_charged_ns as f64)
        }),
    }
}

fn side<'a>(runs: impl Iterator<Item = &'a Figures> + Clone) -> Side {
    let spread = |value: fn(&Figures) -> u64| Spread::of(runs.clone().map(value));
    let received = runs
        .clone()
        .filter_map(|run| stats::ratio(run.victim_charged_ns, run.victim_promised_ns));
    Side {
        attacker_charged_ns: spread(|run| run.attacker_charged_ns),
        attacker_used_ns: spread(Figures::attacker_used_ns),
        uncharged_ns: spread(Figures::uncharged_ns),
        received: stats::median(received),
        misses: spread(|run| run.victim_misses),
        exits: spread(|run| run.victim_exits),
        work: spread(|run| run.victim_work),
    }
}

/// Shows on a terminal what goes on.
fn tell(what: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}

#[cfg(test)]
mod tests;
