//! What the vCPUs of a guest report about their workload.

use baton_abi::testdev::{
    RESULT_ACQUISITIONS, RESULT_COUNTER, RESULT_ELAPSED_NS, RESULT_ITERATIONS, RESULT_WAIT_SUM_NS,
};
use serde::{Deserialize, Serialize};

use super::vcpu_summary::VcpuSummary;
use crate::waits::Waits;

/// What the vCPUs of a guest report about their workload, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Lock acquisitions.
    pub acquisitions: u64,
    /// Loop iterations of a workload without locks.
    pub iterations: u64,
    /// Guest time of the vCPU that took longest, nanoseconds.
    pub elapsed_ns: u64,
    /// Acquisitions per second of `elapsed_ns`.
    pub acquisitions_per_s: u64,
    /// Iterations per second of `elapsed_ns`.
    pub iterations_per_s: u64,
    /// Mean wait for a lock, nanoseconds.
    pub wait_mean_ns: u64,
    /// The wait that 99 % of the waits do not exceed, nanoseconds ([`Waits`]).
    pub wait_p99_ns: u64,
    /// Longest wait, nanoseconds.
    pub wait_max_ns: u64,
    /// Whether the counter under the lock equals the acquisitions; `None` if none was reported.
    pub counter_ok: Option<bool>,
}

impl Workload {
    /// Sums up what the vCPUs have reported. A guest may report any number, so sums saturate.
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

#[cfg(test)]
mod tests {
    use super::*;
    use baton_abi::testdev::{RESULT_WAIT_BUCKET, RESULT_WAIT_MAX_NS};

    fn vcpu(results: &[(u32, u64)]) -> VcpuSummary {
        VcpuSummary {
            results: results.iter().copied().collect(),
            ..VcpuSummary::default()
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
}
