//! One run of a victim beside one guest.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::attack::{Attack, Neighbour};
use super::error::AttackError;
use super::figures::{self, AttackFigures};
use super::perf;
use super::process::{self, Privileges};
use super::scratch;
use crate::error::BenchError;
use crate::scratch_dir::ScratchDir;

/// Flags of a run that shall accept reservations although the host notices halts late.
const LATE_HALTS: &[&str] = &["--late-halts", "allow"];
/// Number of lines, from the end of its standard error, with which a failed run is quoted.
const LAST_LINES: usize = 3;

/// A run that ended well.
#[derive(Clone, Debug)]
pub struct VictimRun {
    /// Its figures.
    pub figures: AttackFigures,
    /// Its summary, as `--summary json` gives it.
    pub summary: Value,
}

/// Runs the victim beside one guest with `program`, which is `baton`. The victim computes for `time` on the
/// second host CPU of `pool`, or on the only one.
///
/// # Errors
/// If the run cannot be made on this host, or does not end well.
pub fn run_victim(
    program: &Path,
    attack: Attack,
    neighbour: Neighbour,
    pool: &[usize],
    time: Duration,
) -> Result<VictimRun, AttackError> {
    let (privileges, flags) = match attack.is_without_perf_events() {
        true => (
            perf::without_events().map_err(AttackError::Refused)?,
            LATE_HALTS,
        ),
        false => (Privileges::All, &[][..]),
    };
    let scratch = ScratchDir::new("attacks").map_err(BenchError::from)?;
    let guests = scratch::prepare(&scratch, attack, &attack.guests(neighbour, pool, time))?;
    let guests = guests.to_string_lossy();
    let mut words = vec!["run", &*guests, "--summary", "json", "--control", "off"];
    words.extend(flags);
    let ended = process::run(program, &words, privileges).map_err(BenchError::Start)?;
    let failed =
        |what: String| AttackError::Failed(format!("{what}: {}", last_lines(&ended.stderr)));
    let summary = figures::summary(&ended.stdout)
        .ok_or_else(|| failed("a run printed no summary".to_owned()))?;
    let figures = AttackFigures::of(&summary, ended.cpu_ns)
        .ok_or_else(|| failed("the summary of a run lacks a figure".to_owned()))?;
    match &figures.attacker_failure {
        _ if !figures.victim_ok => Err(failed("the victim failed".to_owned())),
        Some(end) if attack.is_impossible_on_some_hosts() => {
            Err(AttackError::Refused(format!("the attacker's guest {end}")))
        }
        Some(end) => Err(failed(format!("the attacker's guest {end}"))),
        None if !ended.status.success() => Err(failed("a run failed".to_owned())),
        None => Ok(VictimRun { figures, summary }),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join(" ")
}
