//! The numbers of a whole run.

use std::time::Duration;

use baton_config::{RunConfig, SchedMode};
use baton_host::executor::ExecutorReport;
use baton_host::runner::{RunnerReport, VcpuAccount};
use baton_machine::{GuestEnd, GuestRecord};
use baton_observe::recorder::Moment;
use serde::{Deserialize, Serialize};

use crate::restart::GuestLeft;

use super::cpu_account::CpuAccount;
use super::guest_summary::GuestSummary;
use super::vcpu_summary::VcpuSummary;

/// The version of the form of a summary as JSON. It changes when a member is left out or gets another meaning, and
/// stays when one is added.
pub const VERSION: u32 = 1;

/// A whole run. `docs/summary.schema.json` describes its form as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunSummary {
    /// The version of this form.
    pub version: u32,
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

impl RunSummary {
    /// The numbers of a run of `config` on the host CPUs `pool`, which took `elapsed`. `guests` is what is left of
    /// its guests, in order.
    pub(crate) fn new(
        config: &RunConfig,
        pool: Vec<usize>,
        elapsed: Duration,
        report: RunnerReport,
        guests: Vec<GuestLeft>,
    ) -> Self {
        let baton = config.sched == SchedMode::Baton;
        Self {
            version: VERSION,
            sched: config.sched.name().to_owned(),
            proxy: baton && config.proxy,
            defer_ns: config.defer.filter(|_| baton).map_or(0, ns),
            host_cpus: pool,
            cpu: CpuAccount::of_report(&report, guests.iter().flat_map(|guest| &guest.vcpus)),
            executors: report.executors,
            moment: report.moment,
            elapsed_ns: ns(elapsed),
            guests: guests
                .into_iter()
                .map(|left| GuestSummary {
                    hints: baton.then(|| left.record.hints_in_force().to_string()),
                    restarts: left.restarts,
                    ..guest(&left.record, left.vcpus)
                })
                .collect(),
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The numbers of a guest. One that has not ended by itself was killed by the end of the run.
fn guest(record: &GuestRecord, accounts: Vec<VcpuAccount>) -> GuestSummary {
    record.end(GuestEnd::Killed);
    let end = record.ended().unwrap_or(GuestEnd::Killed);
    let vcpus = (0..)
        .zip(accounts)
        .map(|(index, account)| VcpuSummary::new(account, record.results.of(index), &record.clock));
    GuestSummary::new(&record.name, &end, 0, vcpus.collect())
}
