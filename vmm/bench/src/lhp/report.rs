//! The report, from the runs of all cells.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_config::{DEFAULT_DEFER, DEFAULT_SLICE};
use baton_run::waits::Waits;

use super::axes::{Lock, name};
use super::cell::{Cell, HOLD_NS, OUTSIDE_NS};
use super::cell_runs::CellRuns;
use super::disturbance::LIMIT_PER_MILLE;
use super::lock_run::LockRun;
use super::plan::Plan;
use super::schema::{CellRow, LhpReport, Reference, SCHEMA_VERSION, Settings, SkippedCell};
use crate::report::host_info::HostInfo;
use crate::report::stats::{Spread, median, per_second, ratio};

impl LhpReport {
    /// The report of the `runs` of all cells of `plan`, in the order of its cells.
    #[must_use]
    pub fn new(plan: &Plan, runs: &[CellRuns], elapsed: Duration, interrupted: bool) -> Self {
        let measured = Measured {
            plan,
            cells: plan.cells().into_iter().zip(runs).collect(),
        };
        let references = measured.references();
        Self {
            schema_version: SCHEMA_VERSION,
            settings: settings(plan),
            host: HostInfo::read(),
            elapsed_ns: nanos(elapsed),
            interrupted,
            disturbed_runs: runs
                .iter()
                .filter(|runs| runs.is_measured())
                .map(CellRuns::disturbed)
                .sum(),
            repeated_runs: runs.iter().map(|runs| u64::from(runs.repeated)).sum(),
            results: measured.rows(&references),
            skipped: measured.skipped(),
            references,
        }
    }
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        version: env!("CARGO_PKG_VERSION"),
        runs: plan.runs,
        run_ns: nanos(plan.time),
        host_cpus: plan.host_cpus.clone(),
        hold_ns: HOLD_NS,
        outside_ns: OUTSIDE_NS,
        slice_ns: nanos(DEFAULT_SLICE),
        defer_ns: nanos(DEFAULT_DEFER),
        disturbed_above_per_mille: LIMIT_PER_MILLE,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The runs of all cells of a plan: those of the matrix, then further references.
struct Measured<'a> {
    plan: &'a Plan,
    cells: Vec<(Cell, &'a CellRuns)>,
}

impl<'a> Measured<'a> {
    /// The runs of `cell`, if it was measured.
    fn find(&self, cell: Cell) -> Option<&'a CellRuns> {
        self.cells
            .iter()
            .find(|(other, runs)| *other == cell && runs.is_measured())
            .map(|(_, runs)| *runs)
    }

    /// The references of all locks for which they were measured.
    fn references(&self) -> Vec<Reference> {
        let locks = self.plan.matrix.locks.iter();
        locks.filter_map(|&lock| self.reference(lock)).collect()
    }

    fn reference(&self, lock: Lock) -> Option<Reference> {
        let runs = self.find(Cell::reference_of(lock))?;
        Some(Reference {
            lock,
            runs: runs.runs.len() as u64,
            disturbed: runs.disturbed(),
            acq_per_cpu_s: runs.acquisitions_per_cpu_second(),
        })
    }

    /// The rows of all cells of the matrix that were measured.
    fn rows(&self, references: &[Reference]) -> Vec<CellRow> {
        self.cells
            .iter()
            .take(self.plan.matrix.cells().len())
            .filter(|(_, runs)| runs.is_measured())
            .map(|(cell, runs)| self.row(*cell, runs, references))
            .collect()
    }

    /// The cells, references included, that were not measured.
    fn skipped(&self) -> Vec<SkippedCell> {
        self.cells
            .iter()
            .filter_map(|(cell, runs)| {
                let exclusion = runs.exclusion.as_ref()?;
                Some(SkippedCell {
                    cell: *cell,
                    reason: exclusion.reason.clone(),
                    failed: exclusion.failed,
                })
            })
            .collect()
    }

    fn row(&self, cell: Cell, cell_runs: &CellRuns, references: &[Reference]) -> CellRow {
        let runs = &cell_runs.runs;
        let middle = |of: fn(&LockRun) -> u64| Spread::of(runs.iter().map(of)).median;
        let middle_of = |of: fn(&LockRun) -> f64| median(runs.iter().map(of));
        let mut waits = Waits::default();
        runs.iter().for_each(|run| waits.add(&run.waits));
        let acq_per_cpu_s = cell_runs.acquisitions_per_cpu_second();
        let reference = references.iter().find(|one| one.lock == cell.lock);
        let cpus = self.plan.host_cpus.len();
        CellRow {
            cell,
            vcpus: cell.load.lock_guests(cpus).iter().sum(),
            hog_vcpus: cell.load.hog_vcpus(cpus),
            host_cpus: cpus,
            runs: runs.len() as u64,
            disturbed: cell_runs.disturbed(),
            repeated: cell_runs.repeated,
            acq_per_cpu_s,
            acq_per_s_per_host_cpu: middle(|run| per_second(run.acquisitions, run.pool_ns)),
            wait_ns: waits.figures(),
            wait_percentiles_ns: waits.percentiles(),
            wait_max_ns: Spread::of(runs.iter().map(|run| run.waits.max_ns)),
            ratio_to_reference: reference
                .and_then(|one| ratio(acq_per_cpu_s.median, one.acq_per_cpu_s.median)),
            ratio_to: self.ratios_to_baselines(cell, acq_per_cpu_s.median),
            fairness: middle_of(|run| run.fairness),
            cpu_share: middle_of(|run| run.ran_ns as f64 / run.pool_ns as f64),
            ran_ns: middle(|run| run.ran_ns),
            spin_ns: middle(|run| run.spin_ns),
            switches_per_acq: middle_of(|run| run.switches as f64 / run.acquisitions as f64),
            exits_per_acq: middle_of(|run| run.exits as f64 / run.acquisitions as f64),
            proxied: middle(|run| run.proxied),
            deferrals: middle(|run| run.deferrals),
            holder_preemptions: middle(|run| run.holder_preemptions),
        }
    }

    /// `speed` divided by that of each baseline with the lock and load of `cell`, by the baseline's name.
    fn ratios_to_baselines(&self, cell: Cell, speed: u64) -> BTreeMap<String, f64> {
        let policies = self.plan.matrix.policies.iter();
        policies
            .filter(|policy| policy.is_baseline_of(cell.policy))
            .filter_map(|&policy| {
                let baseline = self.find(Cell { policy, ..cell })?;
                let baseline = baseline.acquisitions_per_cpu_second();
                Some((name(&policy), ratio(speed, baseline.median)?))
            })
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests;
