//! What a run was like: the numbers at its end, as a table ([`text`]) or JSON.

use std::collections::BTreeMap;

use baton_abi::testdev::{
    RESULT_ACQUISITIONS, RESULT_COUNTER, RESULT_ELAPSED_NS, RESULT_ITERATIONS,
    RESULT_RELEASE_RINGS, RESULT_SKIPPED, RESULT_TASK_PREEMPTIONS, RESULT_WAIT_BUCKET,
    RESULT_WAIT_MAX_NS, RESULT_WAIT_RINGS, RESULT_WAIT_SUM_NS,
};
use baton_abi::wait_buckets::BUCKETS;
use baton_config::units::readable_ns;
use baton_host::executor::ExecutorReport;
use baton_host::runner::VcpuAccount;
use baton_machine::GuestEnd;
use baton_machine::clock::GuestClock;
use baton_machine::testdev::{Section, VcpuResults};
use baton_observe::recorder::Moment;
use baton_observe::timeline;
use serde::{Serialize, Serializer};
use vcpu_sched::VcpuId;

use crate::waits::Waits;

pub mod text;

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunSummary {
    /// Who scheduled: `baton`, `host` or `host-deadline`.
    pub sched: String,
    /// Whether holders ran on waiters' budgets.
    pub proxy: bool,
    /// Longest deferral of a holder's preemption, nanoseconds; 0 for none.
    pub defer_ns: u64,
    /// Host CPUs of the pool.
    pub host_cpus: Vec<usize>,
    /// Where the CPU time of the process went.
    pub cpu: CpuAccount,
    /// What each of them did, in their order, where an executor was in charge of it.
    pub executors: Vec<ExecutorReport>,
    /// The moment to show as a timeline, if one was recorded.
    #[serde(skip)]
    pub moment: Option<Moment>,
    /// Wall time from start to stop, nanoseconds.
    pub elapsed_ns: u64,
    /// The guests, in order.
    pub guests: Vec<GuestSummary>,
}

/// One guest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GuestSummary {
    /// Its name.
    pub name: String,
    /// How it ended, in words.
    pub end: String,
    /// Whether that is well.
    pub ok: bool,
    /// The code it exited with, if it did.
    pub exit_code: Option<u32>,
    /// CPU time that other threads than those that ran its vCPUs spent for it; charged to its vCPUs.
    pub elsewhere_ns: Elsewhere,
    /// Bytes of its console that were dropped: nobody took them in time, or they could not be written.
    pub console_dropped: u64,
    /// What its vCPUs report together.
    pub workload: Workload,
    /// Its vCPUs, in order.
    pub vcpus: Vec<VcpuSummary>,
}

/// CPU time that was spent for a guest beside the runs of its vCPUs, by who spent it; charged to its
/// claims. Nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// By the threads on which its halted vCPUs slept, and executors that slept with them.
    pub parked: u64,
    /// By the threads of its devices.
    pub devices: u64,
    /// By the thread that writes what it prints.
    pub console: u64,
}

impl Elsewhere {
    fn of(vcpus: &[VcpuSummary]) -> Self {
        let sum = |part: fn(&VcpuSummary) -> u64| vcpus.iter().map(part).sum::<u64>();
        let (parked, devices) = (sum(|v| v.account.sleep_ns), sum(|v| v.account.devices_ns));
        Self {
            parked,
            devices,
            console: sum(|v| v.account.elsewhere_ns).saturating_sub(parked + devices),
        }
    }
}

/// Where the CPU time of the process went, ns. All zero where no executor was in charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuAccount {
    /// Used by all threads of the process while it ran guests.
    pub process_ns: u64,
    /// Of that, charged to guests.
    pub charged_ns: u64,
    /// Of that, charged to nobody.
    pub unassigned_ns: Unassigned,
}

/// CPU time that nobody is charged for, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unassigned {
    /// By executors that woke up for nothing, or decided to sleep.
    pub idle_executors: u64,
    /// By all else: metrics, trace, control socket, starting and stopping threads, and taking ended
    /// guests apart.
    pub rest: u64,
}

impl CpuAccount {
    /// The account of a process that used `process_ns` while executors ran `vcpus`, and the executors
    /// `idle_ns` of it for nothing that runs.
    #[must_use]
    pub fn new<'a>(
        process_ns: u64,
        vcpus: impl Iterator<Item = &'a VcpuAccount>,
        idle_ns: u64,
    ) -> Self {
        let charged_ns = vcpus.map(|vcpu| vcpu.charged_ns).sum();
        Self {
            process_ns,
            charged_ns,
            unassigned_ns: Unassigned {
                idle_executors: idle_ns,
                rest: process_ns
                    .saturating_sub(charged_ns)
                    .saturating_sub(idle_ns),
            },
        }
    }
}

/// One vCPU.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VcpuSummary {
    /// What the scheduler in charge counted.
    #[serde(flatten)]
    pub account: VcpuAccount,
    /// What it reported itself.
    #[serde(serialize_with = "named_results")]
    pub results: BTreeMap<u32, u64>,
    /// The critical sections that it logged.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// Reports dropped because there were too many.
    pub results_dropped: u64,
}

impl VcpuSummary {
    /// A vCPU that has reported `results`; `clock` is that of its guest.
    #[must_use]
    pub fn new(account: VcpuAccount, mut results: VcpuResults, clock: &GuestClock) -> Self {
        Self {
            account,
            sections: results.take_sections(clock),
            results: results.values,
            results_dropped: results.dropped,
        }
    }
}

/// The workload of a guest's vCPUs together, from their reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Lock acquisitions.
    pub acquisitions: u64,
    /// Loop iterations of a workload without locks.
    pub iterations: u64,
    /// Guest time of the vCPU that took longest, nanoseconds.
    pub elapsed_ns: u64,
    /// Acquisitions per second of that.
    pub acquisitions_per_s: u64,
    /// Iterations per second of that.
    pub iterations_per_s: u64,
    /// Mean wait for a lock, nanoseconds.
    pub wait_mean_ns: u64,
    /// The wait that 99 % of the waits do not exceed, nanoseconds; see [`Waits`].
    pub wait_p99_ns: u64,
    /// Longest wait, nanoseconds.
    pub wait_max_ns: u64,
    /// Whether the counter under the lock equals the acquisitions; `None` if none was reported.
    pub counter_ok: Option<bool>,
}

impl Workload {
    /// Sums up what the vCPUs have reported. Guests may report anything, so sums saturate.
    #[must_use]
    pub fn of(vcpus: &[VcpuSummary]) -> Self {
        let values = |key: u32| {
            vcpus
                .iter()
                .filter_map(move |v| v.results.get(&key).copied())
        };
        let sum = |key| values(key).fold(0u64, u64::saturating_add);
        let max = |key| values(key).max().unwrap_or(0);
        let acquisitions = sum(RESULT_ACQUISITIONS);
        let iterations = sum(RESULT_ITERATIONS);
        let elapsed_ns = max(RESULT_ELAPSED_NS);
        let mut waits = Waits::default();
        for vcpu in vcpus {
            waits.add(&Waits::of_results(&vcpu.results));
        }
        Self {
            acquisitions,
            iterations,
            elapsed_ns,
            acquisitions_per_s: per_second(acquisitions, elapsed_ns),
            iterations_per_s: per_second(iterations, elapsed_ns),
            wait_mean_ns: sum(RESULT_WAIT_SUM_NS)
                .checked_div(acquisitions)
                .unwrap_or(0),
            wait_p99_ns: waits.percentile(99.0),
            wait_max_ns: waits.max_ns,
            counter_ok: values(RESULT_COUNTER).next().map(|c| c == acquisitions),
        }
    }
}

fn per_second(count: u64, ns: u64) -> u64 {
    (u128::from(count) * 1_000_000_000)
        .checked_div(u128::from(ns))
        .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

impl GuestSummary {
    /// A guest that ended as `end`, with its vCPUs' numbers.
    #[must_use]
    pub fn new(name: &str, end: &GuestEnd, console_dropped: u64, vcpus: Vec<VcpuSummary>) -> Self {
        let workload = Workload::of(&vcpus);
        Self {
            name: name.to_owned(),
            end: end.to_string(),
            ok: end.is_success(),
            exit_code: match end {
                GuestEnd::Exited(code) => Some(*code),
                _ => None,
            },
            elsewhere_ns: Elsewhere::of(&vcpus),
            console_dropped,
            workload,
            vcpus,
        }
    }
}

/// The recorded moment as a picture; a sentence if there is none.
#[must_use]
pub fn moment(run: &RunSummary) -> String {
    let Some(moment) = &run.moment else {
        return "No vCPU ran on another's budget, so there is nothing to show.\n".to_owned();
    };
    let around = moment.end - moment.start;
    let names: Vec<String> = run
        .guests
        .iter()
        .flat_map(|guest| (0..guest.vcpus.len()).map(move |vcpu| format!("{}/{vcpu}", guest.name)))
        .collect();
    let name = |vcpu: VcpuId| names.get(vcpu.index()).cloned().unwrap_or_default();
    let (from, to) = (
        moment.start.saturating_sub(around),
        moment.end.saturating_add(around),
    );
    format!(
        "\nThe longest time that a waiter's budget carried a holder: {}\n\n{}",
        readable_ns(around),
        timeline::render(&moment.events, from, to, name)
    )
}

/// The name of a result in JSON.
#[must_use]
pub fn result_name(key: u32) -> String {
    match key {
        RESULT_ACQUISITIONS => "acquisitions".to_owned(),
        RESULT_WAIT_MAX_NS => "wait_max_ns".to_owned(),
        RESULT_WAIT_SUM_NS => "wait_sum_ns".to_owned(),
        RESULT_ELAPSED_NS => "elapsed_ns".to_owned(),
        RESULT_COUNTER => "counter".to_owned(),
        RESULT_ITERATIONS => "iterations".to_owned(),
        RESULT_WAIT_RINGS => "wait_rings".to_owned(),
        RESULT_RELEASE_RINGS => "release_rings".to_owned(),
        RESULT_SKIPPED => "skipped".to_owned(),
        RESULT_TASK_PREEMPTIONS => "task_preemptions".to_owned(),
        key if (RESULT_WAIT_BUCKET..RESULT_WAIT_BUCKET + BUCKETS as u32).contains(&key) => {
            format!("wait_bucket_{}", key - RESULT_WAIT_BUCKET)
        }
        key => format!("result_{key}"),
    }
}

fn named_results<S: Serializer>(
    results: &BTreeMap<u32, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        results
            .iter()
            .map(|(key, value)| (result_name(*key), value)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpu(results: &[(u32, u64)]) -> VcpuSummary {
        VcpuSummary {
            results: results.iter().copied().collect(),
            ..Default::default()
        }
    }

    #[test]
    fn workload_sums_over_vcpus_and_checks_the_counter() {
        let vcpus = [
            vcpu(&[
                (RESULT_ACQUISITIONS, 60),
                (RESULT_ELAPSED_NS, 2_000_000_000),
                (RESULT_WAIT_SUM_NS, 1000),
                (RESULT_WAIT_MAX_NS, 500),
                (RESULT_COUNTER, 100),
                (RESULT_WAIT_BUCKET + 7, 59),
                (RESULT_WAIT_BUCKET + 80, 1),
            ]),
            vcpu(&[
                (RESULT_ACQUISITIONS, 40),
                (RESULT_ELAPSED_NS, 1_000_000_000),
                (RESULT_WAIT_BUCKET + 7, 40),
            ]),
        ];
        let workload = Workload::of(&vcpus);
        assert_eq!(workload.acquisitions, 100);
        assert_eq!(workload.acquisitions_per_s, 50);
        assert_eq!(workload.wait_mean_ns, 10);
        assert_eq!(workload.wait_max_ns, 500);
        assert_eq!(workload.wait_p99_ns, 7);
        assert_eq!(workload.counter_ok, Some(true));
    }

    #[test]
    fn nothing_reported_gives_zeros_and_lies_do_not_overflow() {
        assert_eq!(Workload::of(&[vcpu(&[])]), Workload::default());
        let lies: Vec<(u32, u64)> = (1..0x200).map(|key| (key, u64::MAX)).collect();
        let workload = Workload::of(&[vcpu(&lies), vcpu(&lies)]);
        assert_eq!(workload.acquisitions, u64::MAX);
        assert_eq!(workload.wait_max_ns, u64::MAX);
        assert!(workload.wait_p99_ns > 0);
    }

    #[test]
    fn json_names_the_results() {
        let json = serde_json::to_value(vcpu(&[
            (RESULT_COUNTER, 5),
            (RESULT_WAIT_BUCKET + 527, 1),
            (77, 2),
        ]))
        .expect("json");
        assert_eq!(json["results"]["counter"], 5);
        assert_eq!(json["results"]["wait_bucket_527"], 1);
        assert_eq!(json["results"]["result_77"], 2);
    }
}
