//! One row of the results: a work in one cell, over all rounds.

use serde::Serialize;

use super::axes::{LinuxPolicy, Work};
use super::figures::WorkFigures;
use super::guest_run::GuestRun;
use super::plan::LinuxCell;
use crate::report::stats::{self, Spread};

/// One work with one kernel at one load under one policy.
#[derive(Debug, Serialize)]
pub(super) struct WorkRow {
    pub(super) work: Work,
    #[serde(flatten)]
    pub(super) cell: LinuxCell,
    pub(super) vcpus: usize,
    pub(super) host_cpus: usize,
    pub(super) runs: usize,
    /// Work done per second of real time.
    pub(super) per_second: Spread,
    /// Longest wait of each run, nanoseconds.
    pub(super) max_wait_ns: Option<Spread>,
    /// Median wait of each run, nanoseconds.
    pub(super) median_wait_ns: Option<Spread>,
    /// Median of the ratios to [`LinuxPolicy::Host`] in the same round.
    pub(super) ratio_to_host: Option<f64>,
    /// The same for the longest wait.
    pub(super) wait_ratio_to_host: Option<f64>,
    /// The same for the median wait.
    pub(super) median_wait_ratio_to_host: Option<f64>,
    /// Median of the ratios to [`LinuxPolicy::Baton`] in the same round.
    pub(super) ratio_to_baton: Option<f64>,
    /// The same for the longest wait.
    pub(super) wait_ratio_to_baton: Option<f64>,
    /// The same for the median wait.
    pub(super) median_wait_ratio_to_baton: Option<f64>,
}

impl WorkRow {
    /// The row of `work` in `cell`, if a guest reported this work.
    pub(super) fn new(
        work: Work,
        cell: &LinuxCell,
        host_cpus: usize,
        runs: &[GuestRun],
    ) -> Option<Self> {
        let own = rounds(work, cell, runs);
        if own.is_empty() {
            return None;
        }
        let waits = |value: Value| {
            let waits: Vec<u64> = own.iter().filter_map(|(_, own)| value(own)).collect();
            (!waits.is_empty()).then(|| Spread::of(waits))
        };
        let ratio = |policy, value| ratio(&own, &rounds(work, &cell.under(policy), runs), value);
        let per_second: Value = |figures| Some(figures.per_second());
        let max_wait: Value = |figures| figures.max_wait_ns;
        let median_wait: Value = |figures| figures.median_wait_ns;
        Some(Self {
            work,
            cell: cell.clone(),
            vcpus: cell.load.vcpus(host_cpus),
            host_cpus,
            runs: own.len(),
            per_second: Spread::of(own.iter().map(|(_, own)| own.per_second())),
            max_wait_ns: waits(max_wait),
            median_wait_ns: waits(median_wait),
            ratio_to_host: ratio(LinuxPolicy::Host, per_second),
            wait_ratio_to_host: ratio(LinuxPolicy::Host, max_wait),
            median_wait_ratio_to_host: ratio(LinuxPolicy::Host, median_wait),
            ratio_to_baton: ratio(LinuxPolicy::Baton, per_second),
            wait_ratio_to_baton: ratio(LinuxPolicy::Baton, max_wait),
            median_wait_ratio_to_baton: ratio(LinuxPolicy::Baton, median_wait),
        })
    }
}

/// One figure of a work.
type Value = fn(&WorkFigures) -> Option<u64>;

/// The figures of a work with the number of their round.
type Rounds<'a> = Vec<(u32, &'a WorkFigures)>;

/// The figures of all rounds in which the guest of `cell` reported `work`.
fn rounds<'a>(work: Work, cell: &LinuxCell, runs: &'a [GuestRun]) -> Rounds<'a> {
    let own = runs.iter().filter(|run| run.cell == *cell);
    let figures = |run: &'a GuestRun| {
        let figures = run.works.iter().find(|figures| figures.work == work)?;
        Some((run.round, figures))
    };
    own.filter_map(figures).collect()
}

/// Median of the ratios of `own` to `others` in the same round.
fn ratio(own: &Rounds<'_>, others: &Rounds<'_>, value: Value) -> Option<f64> {
    let ratios: Vec<f64> = own
        .iter()
        .filter_map(|(round, own)| {
            let (_, other) = others.iter().find(|(other, _)| other == round)?;
            stats::ratio(value(own)?, value(other)?)
        })
        .collect();
    (!ratios.is_empty()).then(|| stats::median(ratios))
}
