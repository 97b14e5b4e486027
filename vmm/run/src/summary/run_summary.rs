//! The numbers of a whole run.

use baton_host::executor::ExecutorReport;
use baton_observe::recorder::Moment;
use serde::Serialize;

use super::cpu_account::CpuAccount;
use super::guest_summary::GuestSummary;

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunSummary {
    /// The scheduler in charge: `baton`, `host` or `host-deadline`.
    pub sched: String,
    /// Whether holders could run on waiters' budgets.
    pub proxy: bool,
    /// Longest deferral of a holder's preemption, nanoseconds; 0 for none.
    pub defer_ns: u64,
    /// Host CPUs of the pool.
    pub host_cpus: Vec<usize>,
    /// Where the CPU time of the process went.
    pub cpu: CpuAccount,
    /// What the executor of each host CPU did, in the same order. Empty if there were no executors.
    pub executors: Vec<ExecutorReport>,
    /// The moment to show as a timeline, if one was recorded.
    #[serde(skip)]
    pub moment: Option<Moment>,
    /// Wall time from start to stop, nanoseconds.
    pub elapsed_ns: u64,
    /// The guests, in order.
    pub guests: Vec<GuestSummary>,
}
