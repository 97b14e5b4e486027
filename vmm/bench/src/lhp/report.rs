//! The result of a benchmark, in the form that all outputs share. As JSON it is the schema of
//! `docs/bench-schema.md`, which promises that names only come on while [`SCHEMA_VERSION`] stays.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_config::{DEFAULT_DEFER, DEFAULT_SLICE};
use baton_run::waits::{WaitFigures, Waits};
use serde::Serialize;

use super::cell_run::Run;
use super::disturbance::LIMIT_PER_MILLE;
use super::matrix::{Cell, HOLD_NS, Lock, Matrix, OUTSIDE_NS, name, serialize_name};
use super::rounds::Kept;
use crate::report::stats::{Spread, median, per_second, ratio};

/// Version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was measured, and with what.
    pub settings: Settings,
    /// Where.
    pub host: Host,
    /// Wall time of all runs together, nanoseconds.
    pub elapsed_ns: u64,
    /// Whether the user stopped it before its end.
    pub interrupted: bool,
    /// Runs that count and were disturbed all the same.
    pub disturbed_runs: u64,
    /// Runs that were repeated because they were disturbed.
    pub repeated_runs: u64,
    /// The references, to which ratios are relative. The schema calls them limits; they are none, for a
    /// measured run can be beaten.
    pub limits: Vec<Limit>,
    /// A row for each cell that was measured.
    pub results: Vec<Row>,
    /// The other cells.
    pub skipped: Vec<Skipped>,
}

/// What was measured, and with what.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Version of Baton.
    pub version: &'static str,
    /// Rounds that were asked for.
    pub runs: u32,
    /// How long vCPUs contended in each run, nanoseconds.
    pub run_ns: u64,
    /// The pool.
    pub host_cpus: Vec<usize>,
    /// Work under the lock, nanoseconds.
    pub hold_ns: u64,
    /// Work between acquisitions, nanoseconds.
    pub outside_ns: u64,
    /// Longest turn under Baton, nanoseconds.
    pub slice_ns: u64,
    /// Longest deferral, nanoseconds.
    pub defer_ns: u64,
    /// A run is disturbed if others took more of the pool than this, per mille.
    pub disturbed_above_per_mille: u32,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
}

/// The reference of one lock: its cell without overcommit, under the host kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// The lock.
    #[serde(serialize_with = "serialize_name")]
    pub lock: Lock,
    /// Runs that count.
    pub runs: u64,
    /// Of those, disturbed ones.
    pub disturbed: u64,
    /// Acquisitions per second of CPU time.
    pub acq_per_cpu_s: Spread,
}

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Lock, load and policy.
    #[serde(flatten)]
    pub cell: Cell,
    /// vCPUs that take the lock.
    pub vcpus: usize,
    /// vCPUs beside them that only compute.
    pub hog_vcpus: usize,
    /// Number of host CPUs.
    pub host_cpus: usize,
    /// Runs that count.
    pub runs: u64,
    /// Of those, disturbed ones.
    pub disturbed: u64,
    /// Runs that were repeated.
    pub repeated: u32,
    /// Acquisitions per second of the CPU time that the vCPUs with the lock got.
    pub acq_per_cpu_s: Spread,
    /// Acquisitions per second of guest time and host CPU; median.
    pub acq_per_s_per_host_cpu: u64,
    /// Waits of all runs together.
    pub wait_ns: WaitFigures,
    /// Their distribution: percent, and the wait that so many do not exceed; from the median to the
    /// longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_percentiles_ns: Option<Vec<(f64, u64)>>,
    /// The longest wait of a run.
    pub wait_max_ns: Spread,
    /// Median of `acq_per_cpu_s` by that of the lock's reference.
    pub ratio_to_limit: Option<f64>,
    /// The same by that of each baseline with the same lock and load.
    pub ratio_to: BTreeMap<String, f64>,
    /// Acquisitions of the vCPU with the fewest by those of the one with the most; median.
    pub fairness: f64,
    /// CPU time of the vCPUs with the lock, by what the pool had while they contended; median.
    pub cpu_share: f64,
    /// CPU time of the vCPUs with the lock, nanoseconds; median.
    pub ran_ns: u64,
    /// Of that, at most so much went into waiting; median.
    pub spin_ns: u64,
    /// vCPUs put on a CPU, per acquisition; median.
    pub switches_per_acq: f64,
    /// Exits per acquisition; median.
    pub exits_per_acq: f64,
    /// Runs of a holder on a waiter's budget; median.
    pub proxied: u64,
    /// Preemptions of a holder put off; median.
    pub deferrals: u64,
    /// Preemptions of a holder, as far as hints tell; median.
    pub holder_preemptions: u64,
}

/// A cell without numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Lock, load and policy.
    #[serde(flatten)]
    pub cell: Cell,
    /// Why.
    pub reason: String,
    /// Whether something is wrong, rather than this host not able.
    pub failed: bool,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cells.
    pub matrix: Matrix,
    /// Rounds.
    pub runs: u32,
    /// Time of a run.
    pub time: Duration,
    /// The pool.
    pub host_cpus: Vec<usize>,
    /// Time for all, if it is limited.
    pub limit: Option<Duration>,
}

impl Plan {
    /// All cells to run: those of the matrix, then the references that are not among them.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = self.matrix.cells();
        cells.extend(self.matrix.extra_limits());
        cells
    }
}

impl Report {
    /// The report of what was `kept` of the cells of `plan`, in their order.
    #[must_use]
    pub fn new(plan: &Plan, kept: &[Kept], elapsed: Duration, interrupted: bool) -> Self {
        let cells = plan.cells();
        let measured: Vec<(Cell, &Kept)> = cells.iter().copied().zip(kept).collect();
        let limits: Vec<Limit> = plan
            .matrix
            .locks
            .iter()
            .filter_map(|&lock| {
                let kept = find(&measured, Cell::limit_of(lock))?;
                Some(Limit {
                    lock,
                    runs: kept.runs.len() as u64,
                    disturbed: disturbed(kept),
                    acq_per_cpu_s: speed(kept),
                })
            })
            .collect();
        let of_matrix = || measured.iter().take(plan.matrix.cells().len());
        let results = of_matrix()
            .filter(|(_, kept)| is_measured(kept))
            .map(|(cell, kept)| row(plan, *cell, kept, &limits, &measured))
            .collect();
        let skipped = measured
            .iter()
            .filter_map(|(cell, kept)| {
                let excluded = kept.excluded.as_ref()?;
                Some(Skipped {
                    cell: *cell,
                    reason: excluded.reason.clone(),
                    failed: excluded.failed,
                })
            })
            .collect();
        Self {
            schema_version: SCHEMA_VERSION,
            settings: Settings {
                version: env!("CARGO_PKG_VERSION"),
                runs: plan.runs,
                run_ns: nanos(plan.time),
                host_cpus: plan.host_cpus.clone(),
                hold_ns: HOLD_NS,
                outside_ns: OUTSIDE_NS,
                slice_ns: nanos(DEFAULT_SLICE),
                defer_ns: nanos(DEFAULT_DEFER),
                disturbed_above_per_mille: LIMIT_PER_MILLE,
            },
            host: Host::this(),
            elapsed_ns: nanos(elapsed),
            interrupted,
            disturbed_runs: kept.iter().filter(|k| is_measured(k)).map(disturbed).sum(),
            repeated_runs: kept.iter().map(|k| u64::from(k.repeated)).sum(),
            limits,
            results,
            skipped,
        }
    }

    /// Whether nothing is wrong with it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.interrupted && self.skipped.iter().all(|skipped| !skipped.failed)
    }

    /// What the ratios of `lock` are relative to; `None` if it could not be measured.
    #[must_use]
    pub fn reference(&self, lock: Lock) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.lock == lock)
    }

    /// The row of `cell`.
    #[must_use]
    pub fn row(&self, cell: Cell) -> Option<&Row> {
        self.results.iter().find(|row| row.cell == cell)
    }
}

impl Host {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .and_then(|rest| rest.split_once(':'))
            .map_or("", |(_, name)| name.trim());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.to_owned(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn is_measured(kept: &Kept) -> bool {
    kept.excluded.is_none() && !kept.runs.is_empty()
}

fn disturbed(kept: &Kept) -> u64 {
    kept.runs.iter().filter(|run| run.is_disturbed()).count() as u64
}

fn find<'a>(measured: &[(Cell, &'a Kept)], cell: Cell) -> Option<&'a Kept> {
    measured
        .iter()
        .find(|(other, kept)| *other == cell && is_measured(kept))
        .map(|(_, kept)| *kept)
}

fn speed(kept: &Kept) -> Spread {
    let speeds = kept.runs.iter();
    Spread::of(speeds.map(|run| per_second(run.acquisitions, run.ran_ns)))
}

fn row(plan: &Plan, cell: Cell, kept: &Kept, limits: &[Limit], measured: &[(Cell, &Kept)]) -> Row {
    let runs = &kept.runs;
    let middle = |of: fn(&Run) -> u64| Spread::of(runs.iter().map(of)).median;
    let middle_of = |of: fn(&Run) -> f64| median(runs.iter().map(of));
    let mut waits = Waits::default();
    runs.iter().for_each(|run| waits.add(&run.waits));
    let acq_per_cpu_s = speed(kept);
    let ratio_to = plan
        .matrix
        .policies
        .iter()
        .filter(|policy| policy.is_host() && **policy != cell.policy)
        .filter_map(|&policy| {
            let baseline = find(measured, Cell { policy, ..cell })?;
            let ratio = ratio(acq_per_cpu_s.median, speed(baseline).median)?;
            Some((name(&policy), ratio))
        })
        .collect();
    let cpus = plan.host_cpus.len();
    Row {
        cell,
        vcpus: cell.load.lock_guests(cpus).iter().sum(),
        hog_vcpus: cell.load.hog_vcpus(cpus),
        host_cpus: cpus,
        runs: runs.len() as u64,
        disturbed: disturbed(kept),
        repeated: kept.repeated,
        acq_per_cpu_s,
        acq_per_s_per_host_cpu: middle(|run| per_second(run.acquisitions, run.pool_ns)),
        wait_ns: waits.figures(),
        wait_percentiles_ns: waits.percentiles(),
        wait_max_ns: Spread::of(runs.iter().map(|run| run.waits.max_ns)),
        ratio_to_limit: limits
            .iter()
            .find(|limit| limit.lock == cell.lock)
            .and_then(|limit| ratio(acq_per_cpu_s.median, limit.acq_per_cpu_s.median)),
        ratio_to,
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lhp::matrix::{Load, Policy};
    use crate::lhp::rounds::Excluded;

    /// A plan of ticket locks, at 4x and 8x, under three policies.
    pub fn plan() -> Plan {
        Plan {
            matrix: Matrix {
                locks: vec![Lock::Ticket],
                loads: vec![Load::X4, Load::X8],
                policies: vec![Policy::HostSpin, Policy::HostDeadline, Policy::Baton],
            },
            runs: 2,
            time: Duration::from_millis(500),
            host_cpus: vec![0, 1],
            limit: None,
        }
    }

    fn kept(acquisitions: &[u64]) -> Kept {
        let run = |&acquisitions| {
            let mut waits = Waits::default();
            waits.max_ns = 2_000;
            waits.count(1_500, acquisitions as u32);
            Run {
                acquisitions,
                ran_ns: 1_000_000_000,
                pool_ns: 2_000_000_000,
                waits,
                fairness: 0.5,
                switches: acquisitions,
                others_per_mille: Some(acquisitions as u32),
                ..Run::default()
            }
        };
        Kept {
            runs: acquisitions.iter().map(run).collect(),
            ..Kept::default()
        }
    }

    /// A report of [`plan`], in which `host-deadline` could not run.
    pub fn report() -> Report {
        let plan = plan();
        let excluded = |failed| Kept {
            excluded: Some(Excluded {
                reason: "needs <root>".to_owned(),
                failed,
            }),
            ..kept(&[9])
        };
        let kept = [
            kept(&[10, 20]),
            excluded(false),
            kept(&[50, 150]),
            kept(&[5]),
            excluded(true),
            kept(&[40]),
            kept(&[200]),
        ];
        Report::new(&plan, &kept, Duration::from_secs(3), false)
    }

    #[test]
    fn ratios_are_of_medians_to_the_reference_and_to_each_baseline() {
        let report = report();
        let row = &report.results[1];
        assert_eq!(name(&row.cell.policy), "baton");
        assert_eq!(
            row.acq_per_cpu_s,
            Spread {
                median: 100,
                min: 50,
                max: 150
            }
        );
        assert_eq!(row.ratio_to_limit, Some(0.5));
        assert_eq!(
            row.ratio_to,
            BTreeMap::from([("host-spin".to_owned(), 6.6667)])
        );
        assert_eq!((row.vcpus, row.runs, row.disturbed), (8, 2, 1));
        assert_eq!((row.cpu_share, row.switches_per_acq), (0.5, 1.0));
        assert_eq!(row.acq_per_s_per_host_cpu, 50);
        let reference = report.reference(Lock::Ticket).expect("measured");
        assert_eq!(reference.acq_per_cpu_s.median, 200);
        assert_eq!((reference.runs, reference.disturbed), (1, 1));
        assert!(report.reference(Lock::Mcs).is_none());
    }

    #[test]
    fn excluded_cells_have_a_reason_and_no_row() {
        let report = report();
        assert_eq!(report.results.len(), 4);
        assert_eq!(report.skipped.len(), 2);
        assert!(!report.is_good());
        let limit_has_no_row = report.row(Cell::limit_of(Lock::Ticket)).is_none();
        assert!(limit_has_no_row);
        assert_eq!(report.disturbed_runs, 2);
    }

    #[test]
    fn interrupted_report_without_runs_has_no_rows() {
        let plan = plan();
        let nothing = vec![Kept::default(); plan.cells().len()];
        let report = Report::new(&plan, &nothing, Duration::ZERO, true);
        assert!(report.results.is_empty() && report.skipped.is_empty() && report.limits.is_empty());
        assert!(!report.is_good());
    }
}
