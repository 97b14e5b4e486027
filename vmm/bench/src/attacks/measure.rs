//! The runs of `baton bench attacks`.

use std::path::Path;
use std::time::Duration;

use baton_os::signals::StopSignals;

use super::args::AttacksArgs;
use super::attack::{Attack, Neighbour};
use super::error::AttackError;
use super::report::{self, AttackPair, AttacksReport, SCHEMA_VERSION, SkippedAttack};
use super::victim_run::run_victim;
use crate::error::BenchError;
use crate::flags::host_cpus;
use crate::status_line::StatusLine;

/// Number of host CPUs in the pool unless the user names them.
const POOL: usize = 2;
/// This program, even if its file has been replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// Makes all runs. If the user stops the benchmark, the report has the pairs of runs that were complete by
/// then.
pub(super) fn measure(
    args: &AttacksArgs,
    signals: Option<&StopSignals>,
) -> Result<AttacksReport, BenchError> {
    let mut pool = host_cpus(args.host_cpus.as_ref())?;
    if args.host_cpus.is_none() {
        pool.truncate(POOL);
    }
    let (runs, time) = args.runs_and_time();
    let attacks = args.chosen();
    let mut pairs = vec![Vec::new(); attacks.len()];
    let mut skipped: Vec<SkippedAttack> = Vec::new();
    let status = StatusLine::on_stderr();
    'all: for round in 0..runs {
        for (&attack, pairs) in attacks.iter().zip(&mut pairs) {
            if is_skipped(&skipped, attack) {
                continue;
            }
            status.show(&format!("round {} of {runs}: {attack}", round + 1));
            let result = pair(attack, round, &pool, time);
            // A signal from the terminal reaches the process of the run as well, whose result is void then.
            if signals.is_some_and(StopSignals::take) {
                break 'all;
            }
            match result {
                Ok(pair) => pairs.push(pair),
                Err(error) => skipped.push(skip(attack, error)?),
            }
        }
    }
    status.clear();
    let rows = attacks.iter().zip(&pairs);
    Ok(AttacksReport {
        schema_version: SCHEMA_VERSION,
        runs,
        run_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        host_cpus: pool,
        results: rows
            .filter(|(attack, pairs)| !pairs.is_empty() && !is_skipped(&skipped, **attack))
            .map(|(&attack, pairs)| report::row(attack, pairs))
            .collect(),
        skipped,
    })
}

fn is_skipped(skipped: &[SkippedAttack], attack: Attack) -> bool {
    skipped.iter().any(|skipped| skipped.attack == attack)
}

/// The entry for an attack whose run failed; the error itself, if all other runs would fail, too.
fn skip(attack: Attack, error: AttackError) -> Result<SkippedAttack, BenchError> {
    let (reason, failed) = match error {
        AttackError::Bench(error) => return Err(error),
        AttackError::Refused(reason) => (reason, false),
        AttackError::Failed(reason) => (reason, true),
    };
    Ok(SkippedAttack {
        attack,
        reason,
        failed,
    })
}

/// A run beside the idle guest and one beside the attacker; every other round begins with the attacker.
fn pair(
    attack: Attack,
    round: u32,
    pool: &[usize],
    time: Duration,
) -> Result<AttackPair, AttackError> {
    let run = |neighbour| {
        let run = run_victim(Path::new(SELF), attack, neighbour, pool, time)?;
        Ok::<_, AttackError>(run.figures)
    };
    if round.is_multiple_of(2) {
        let idle = run(Neighbour::Idle)?;
        Ok([idle, run(Neighbour::Attacker)?])
    } else {
        let attacked = run(Neighbour::Attacker)?;
        Ok([run(Neighbour::Idle)?, attacked])
    }
}
