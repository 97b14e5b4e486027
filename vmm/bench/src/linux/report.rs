//! The results of `baton bench linux`, in the form of the JSON.

use serde::Serialize;

use super::args::LinuxArgs;
use super::axes::{LinuxLoad, LinuxPolicy, Work};
use super::figures::WorkFigures;
use crate::report::stats::{self, Spread};

/// Version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// The results.
#[derive(Debug, Serialize)]
pub struct LinuxReport {
    schema_version: u32,
    pub(super) runs: u32,
    pub(super) results: Vec<WorkRow>,
    /// Guests that were started again because they did not report all works, by policy.
    pub(super) restarts: Vec<(LinuxPolicy, u32)>,
}

/// One work at one load under one policy.
#[derive(Debug, Serialize)]
pub(super) struct WorkRow {
    pub(super) work: Work,
    pub(super) load: LinuxLoad,
    pub(super) policy: LinuxPolicy,
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
}

/// One run: the guest that reported, and those that were started before it and did not.
#[derive(Debug)]
pub(super) struct GuestRun {
    pub(super) round: u32,
    pub(super) load: LinuxLoad,
    pub(super) policy: LinuxPolicy,
    pub(super) restarts: u32,
    pub(super) figures: Vec<WorkFigures>,
}

impl LinuxReport {
    /// The report of `runs` on a pool of `host_cpus` host CPUs.
    pub(super) fn new(args: &LinuxArgs, host_cpus: usize, runs: &[GuestRun]) -> Self {
        let mut results = Vec::new();
        for &work in &args.works {
            for &load in &args.loads {
                for &policy in &args.policies {
                    let pairs = pairs(runs, args.runs, (work, load, policy));
                    if !pairs.is_empty() {
                        results.push(WorkRow::new(work, load, policy, host_cpus, &pairs));
                    }
                }
            }
        }
        let restarts = |policy| {
            let own = runs.iter().filter(|run| run.policy == policy);
            own.map(|run| run.restarts).sum()
        };
        Self {
            schema_version: SCHEMA_VERSION,
            runs: args.runs,
            results,
            restarts: args
                .policies
                .iter()
                .map(|&policy| (policy, restarts(policy)))
                .collect(),
        }
    }
}

/// The figures of one run, and those under the host's scheduler in the same round.
type WorkPair<'a> = (&'a WorkFigures, Option<&'a WorkFigures>);

/// The pairs of all rounds in which the guest of this row reported the work.
fn pairs(
    runs: &[GuestRun],
    rounds: u32,
    (work, load, policy): (Work, LinuxLoad, LinuxPolicy),
) -> Vec<WorkPair<'_>> {
    let figures = |round, policy| {
        runs.iter()
            .find(|run| run.round == round && run.load == load && run.policy == policy)
            .and_then(|run| run.figures.iter().find(|figures| figures.work == work))
    };
    (0..rounds)
        .filter_map(|round| {
            let own = figures(round, policy)?;
            Some((own, figures(round, LinuxPolicy::Host)))
        })
        .collect()
}

impl WorkRow {
    fn new(
        work: Work,
        load: LinuxLoad,
        policy: LinuxPolicy,
        host_cpus: usize,
        pairs: &[WorkPair<'_>],
    ) -> Self {
        let ratio = |value: fn(&WorkFigures) -> Option<u64>| {
            let ratios: Vec<f64> = pairs
                .iter()
                .filter_map(|(own, host)| stats::ratio(value(own)?, value((*host)?)?))
                .collect();
            (!ratios.is_empty()).then(|| stats::median(ratios))
        };
        let waits = |value: fn(&WorkFigures) -> Option<u64>| {
            let waits: Vec<u64> = pairs.iter().filter_map(|(own, _)| value(own)).collect();
            (!waits.is_empty()).then(|| Spread::of(waits))
        };
        Self {
            work,
            load,
            policy,
            vcpus: load.vcpus(host_cpus),
            host_cpus,
            runs: pairs.len(),
            per_second: Spread::of(pairs.iter().map(|(own, _)| own.per_second())),
            max_wait_ns: waits(|figures| figures.max_wait_ns),
            median_wait_ns: waits(|figures| figures.median_wait_ns),
            ratio_to_host: ratio(|figures| Some(figures.per_second())),
            wait_ratio_to_host: ratio(|figures| figures.max_wait_ns),
            median_wait_ratio_to_host: ratio(|figures| figures.median_wait_ns),
        }
    }
}
