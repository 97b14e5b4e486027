//! The results of `baton bench linux`, in the form of the JSON.

use serde::Serialize;

use super::args::LinuxArgs;
use super::axes::{LinuxPolicy, Work};
use super::guest_run::GuestRun;
use super::kernels::NamedKernel;
use super::plan::{LinuxCell, LinuxPlan};
use super::row::WorkRow;
use crate::report::host_info::HostInfo;

/// Version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// The results.
#[derive(Debug, Serialize)]
pub struct LinuxReport {
    schema_version: u32,
    settings: LinuxSettings,
    host: HostInfo,
    pub(super) runs: u32,
    kernels: Vec<NamedKernel>,
    pub(super) results: Vec<WorkRow>,
    /// Guests that were started again because they did not report all works, or more than is possible, by policy.
    pub(super) restarts: Vec<(LinuxPolicy, u32)>,
    /// Every run.
    guests: Vec<GuestRun>,
}

/// What was measured, and with what.
#[derive(Debug, Serialize)]
struct LinuxSettings {
    /// Version of Baton.
    version: &'static str,
    host_cpus: Vec<usize>,
    /// Whether the clock of the host counts instructions.
    virtual_time: bool,
    /// Seconds for each work that has no end of its own.
    seconds: u32,
    /// More words of every guest's command line.
    cmdline: String,
}

impl LinuxReport {
    /// The report of `runs` on a pool of `host_cpus`.
    pub(super) fn new(
        args: &LinuxArgs,
        plan: LinuxPlan,
        host_cpus: Vec<usize>,
        runs: Vec<GuestRun>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            runs: args.runs,
            results: rows(&args.works, &plan.cells, host_cpus.len(), &runs),
            restarts: restarts(&plan.cells, &runs),
            settings: LinuxSettings {
                version: env!("CARGO_PKG_VERSION"),
                host_cpus,
                virtual_time: args.virtual_time,
                seconds: args.seconds,
                cmdline: args.cmdline.clone(),
            },
            host: HostInfo::read(),
            kernels: plan.kernels,
            guests: runs,
        }
    }
}

/// The rows of all works and cells of which a guest reported results.
fn rows(works: &[Work], cells: &[LinuxCell], host_cpus: usize, runs: &[GuestRun]) -> Vec<WorkRow> {
    let mut rows = Vec::new();
    for &work in works {
        for cell in cells {
            rows.extend(WorkRow::new(work, cell, host_cpus, runs));
        }
    }
    rows
}

/// For each policy of `cells`, the guests that were started again.
fn restarts(cells: &[LinuxCell], runs: &[GuestRun]) -> Vec<(LinuxPolicy, u32)> {
    let of = |policy| {
        let own = runs.iter().filter(|run| run.cell.policy == policy);
        own.map(|run| run.restarts).sum()
    };
    let measured = |policy: &LinuxPolicy| cells.iter().any(|cell| cell.policy == *policy);
    let policies = LinuxPolicy::ALL.into_iter().filter(measured);
    policies.map(|policy| (policy, of(policy))).collect()
}
