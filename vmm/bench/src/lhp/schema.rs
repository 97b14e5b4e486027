//! The results in the form that all outputs share. Their JSON is the schema of `docs/bench-schema.md`: while
//! [`SCHEMA_VERSION`] stays the same, names are only added.

use std::collections::BTreeMap;

use baton_run::waits::WaitFigures;
use serde::Serialize;

use super::axes::{Lock, serialize_name};
use super::cell::Cell;
use crate::report::host_info::HostInfo;
use crate::report::stats::Spread;

/// Version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// The results of a whole benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct LhpReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was measured, and with what.
    pub settings: Settings,
    /// The host on which it was measured.
    pub host: HostInfo,
    /// Wall time of all runs together, nanoseconds.
    pub elapsed_ns: u64,
    /// Whether the user stopped the benchmark before its end.
    pub interrupted: bool,
    /// Disturbed runs among those that count.
    pub disturbed_runs: u64,
    /// Runs that were repeated because they were disturbed.
    pub repeated_runs: u64,
    /// The references of the ratios. The schema calls them limits, although a cell can be faster.
    #[serde(rename = "limits")]
    pub references: Vec<Reference>,
    /// A row for each cell that was measured.
    pub results: Vec<CellRow>,
    /// The cells that were not measured.
    pub skipped: Vec<SkippedCell>,
}

/// What was measured, and with what.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Version of Baton.
    pub version: &'static str,
    /// Planned number of rounds.
    pub runs: u32,
    /// Time for which vCPUs contended in each run, nanoseconds.
    pub run_ns: u64,
    /// The host CPUs of the pool.
    pub host_cpus: Vec<usize>,
    /// Work under the lock, nanoseconds.
    pub hold_ns: u64,
    /// Work between acquisitions, nanoseconds.
    pub outside_ns: u64,
    /// Longest slice under Baton, nanoseconds.
    pub slice_ns: u64,
    /// Longest deferral, nanoseconds.
    pub defer_ns: u64,
    /// A run is disturbed if other processes took more of the pool than this, per mille.
    pub disturbed_above_per_mille: u32,
}

/// The reference of one lock: its cell without overcommit, under the host kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Reference {
    /// The lock.
    #[serde(serialize_with = "serialize_name")]
    pub lock: Lock,
    /// Runs that count.
    pub runs: u64,
    /// Disturbed runs among them.
    pub disturbed: u64,
    /// Acquisitions per second of CPU time.
    pub acq_per_cpu_s: Spread,
}

/// The results of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct CellRow {
    /// Lock, load and policy.
    #[serde(flatten)]
    pub cell: Cell,
    /// Number of vCPUs that take the lock.
    pub vcpus: usize,
    /// Number of vCPUs beside them that only compute.
    pub hog_vcpus: usize,
    /// Number of host CPUs.
    pub host_cpus: usize,
    /// Runs that count.
    pub runs: u64,
    /// Disturbed runs among them.
    pub disturbed: u64,
    /// Runs that were repeated.
    pub repeated: u32,
    /// Acquisitions per second of the CPU time that the vCPUs with the lock got.
    pub acq_per_cpu_s: Spread,
    /// Acquisitions per second of guest time and per host CPU; median.
    pub acq_per_s_per_host_cpu: u64,
    /// The waits of all runs together.
    pub wait_ns: WaitFigures,
    /// The distribution of these waits: percentages, each with the wait that so many do not exceed; from the
    /// median to the longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_percentiles_ns: Option<Vec<(f64, u64)>>,
    /// The longest wait of each run.
    pub wait_max_ns: Spread,
    /// Median of `acq_per_cpu_s`, divided by that of the lock's reference.
    #[serde(rename = "ratio_to_limit")]
    pub ratio_to_reference: Option<f64>,
    /// The same, divided by that of each baseline with the same lock and load.
    pub ratio_to: BTreeMap<String, f64>,
    /// Acquisitions of the vCPU with the fewest, divided by those of the vCPU with the most; median.
    pub fairness: f64,
    /// CPU time of the vCPUs with the lock, divided by that of the pool while they contended; median.
    pub cpu_share: f64,
    /// CPU time of the vCPUs with the lock, nanoseconds; median.
    pub ran_ns: u64,
    /// Upper bound of the part of that CPU time that went into waiting, nanoseconds; median.
    pub spin_ns: u64,
    /// Times that a vCPU was put on a CPU, per acquisition; median.
    pub switches_per_acq: f64,
    /// Exits per acquisition; median.
    pub exits_per_acq: f64,
    /// Times that a holder ran on a waiter's budget; median.
    pub proxied: u64,
    /// Times that the preemption of a holder was deferred; median.
    pub deferrals: u64,
    /// Times that a holder was preempted, as far as hints show it; median.
    pub holder_preemptions: u64,
}

/// A cell that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedCell {
    /// Lock, load and policy.
    #[serde(flatten)]
    pub cell: Cell,
    /// The reason, as a sentence.
    pub reason: String,
    /// Whether a run failed; otherwise this host cannot make the run.
    pub failed: bool,
}

impl LhpReport {
    /// Whether the benchmark was complete and no run failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.interrupted && self.skipped.iter().all(|skipped| !skipped.failed)
    }

    /// The reference of the ratios of `lock`; `None` if it could not be measured.
    #[must_use]
    pub fn reference(&self, lock: Lock) -> Option<&Reference> {
        self.references
            .iter()
            .find(|reference| reference.lock == lock)
    }

    /// The row of `cell`.
    #[must_use]
    pub fn row(&self, cell: Cell) -> Option<&CellRow> {
        self.results.iter().find(|row| row.cell == cell)
    }
}
