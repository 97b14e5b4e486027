//! The results of `baton bench switch`, in the form of the JSON.

use serde::Serialize;

use super::operation::Operation;
use crate::report::stats::Spread;

/// Version of the JSON.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// The time that one operation takes, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct OperationRow {
    /// The operation.
    pub operation: Operation,
    /// Under our policy, in the form that is the default on this host.
    pub baton_ns: Spread,
    /// Under our policy, each vCPU on a thread of its own (`--vcpu-threads on`); `None` if it did not occur.
    pub threads_ns: Option<Spread>,
    /// Under our policy, as processes of a pool; `None` if it did not occur.
    pub pool_ns: Option<Spread>,
    /// The median of the ratios of `pool_ns` to `threads_ns` in the same round.
    pub pool_to_threads: Option<f64>,
    /// Under our policy in runs without the measured operation, for operations that have such runs.
    pub without_ns: Option<Spread>,
    /// With a thread for each vCPU; `None` where the same cannot be measured there.
    pub host_ns: Option<Spread>,
    /// Operations in all runs under our policy together.
    pub count: u64,
}

/// An operation that cannot be measured on this host or pool.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedOperation {
    /// The operation.
    pub operation: Operation,
    /// The reason, as a sentence.
    pub reason: String,
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchReport {
    /// Grows when a field changes its meaning or is removed.
    pub schema_version: u32,
    /// Runs of each operation.
    pub runs: u32,
    /// One row for each operation.
    pub results: Vec<OperationRow>,
    /// Operations without a row.
    pub skipped: Vec<SkippedOperation>,
}
