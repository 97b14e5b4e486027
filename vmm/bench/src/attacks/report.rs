//! The results of `baton bench attacks`, in the form of the JSON.

use serde::Serialize;

use super::attack::Attack;
use super::figures::AttackFigures;
use crate::report::stats::{self, Spread};

/// Version of the JSON.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct AttacksReport {
    /// Grows when a field changes its meaning or is removed.
    pub schema_version: u32,
    /// Runs beside each attacker, and as many beside an idle guest.
    pub runs: u32,
    /// Time for which the victim computes in a run, nanoseconds.
    pub run_ns: u64,
    /// The host CPUs of the pool.
    pub host_cpus: Vec<usize>,
    /// One row for each attack.
    pub results: Vec<AttackRow>,
    /// Attacks without a row.
    pub skipped: Vec<SkippedAttack>,
}

/// The effect of one attack.
#[derive(Clone, Debug, Serialize)]
pub struct AttackRow {
    /// The attack.
    pub attack: Attack,
    /// Runs that count.
    pub runs: usize,
    /// Beside a guest of the same shape that is idle.
    pub beside_idle: SideFigures,
    /// Beside the attacker.
    pub beside_attacker: SideFigures,
    /// The victim's work beside the attacker, divided by its work beside the idle guest in the same round;
    /// median.
    pub work_ratio: Option<f64>,
    /// The same for its work per second of CPU time that it was charged.
    pub work_per_cpu_ratio: Option<f64>,
}

/// The figures of all runs beside one of the two guests.
#[derive(Clone, Debug, Serialize)]
pub struct SideFigures {
    /// CPU time that the guest beside the victim was charged, nanoseconds.
    pub attacker_charged_ns: Spread,
    /// CPU time of the process without that which other guests were charged, nanoseconds.
    pub attacker_used_ns: Spread,
    /// CPU time of the process that no guest was charged, nanoseconds.
    pub uncharged_ns: Spread,
    /// CPU time that the victim was charged, divided by what its reservation promises; median.
    pub received: f64,
    /// Deadlines that the victim missed.
    pub misses: Spread,
    /// Exits of the victim.
    pub exits: Spread,
    /// Iterations that the victim computed.
    pub work: Spread,
}

/// An attack that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedAttack {
    /// The attack.
    pub attack: Attack,
    /// The reason, as a sentence.
    pub reason: String,
    /// Whether a run failed; otherwise this host cannot make the run.
    pub failed: bool,
}

/// The figures of a run beside the idle guest and of one beside the attacker, in the same round.
pub(super) type AttackPair = [AttackFigures; 2];

/// The row of `attack`.
pub(super) fn row(attack: Attack, pairs: &[AttackPair]) -> AttackRow {
    let ratio = |value: fn(&AttackFigures) -> Option<f64>| {
        let ratios: Vec<f64> = pairs
            .iter()
            .filter_map(|[idle, attacked]| Some(value(attacked)? / value(idle)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        (!ratios.is_empty()).then(|| stats::median(ratios))
    };
    AttackRow {
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

fn side<'a>(runs: impl Iterator<Item = &'a AttackFigures> + Clone) -> SideFigures {
    let spread = |value: fn(&AttackFigures) -> u64| Spread::of(runs.clone().map(value));
    let received = runs
        .clone()
        .filter_map(|run| stats::ratio(run.victim_charged_ns, run.victim_promised_ns));
    SideFigures {
        attacker_charged_ns: spread(|run| run.attacker_charged_ns),
        attacker_used_ns: spread(AttackFigures::attacker_used_ns),
        uncharged_ns: spread(AttackFigures::uncharged_ns),
        received: stats::median(received),
        misses: spread(|run| run.victim_misses),
        exits: spread(|run| run.victim_exits),
        work: spread(|run| run.victim_work),
    }
}
