//! Where the CPU time of the process went.

use baton_host::runner::{RunnerReport, VcpuAccount};
use serde::{Deserialize, Serialize};

/// Where the CPU time of the process went, ns. All zero if there were no executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAccount {
    /// Used by all threads of the process while it ran guests.
    pub process_ns: u64,
    /// Of that, charged to guests.
    pub charged_ns: u64,
    /// Of that, charged to no guest.
    pub unassigned_ns: Unassigned,
}

/// CPU time that is charged to no guest, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unassigned {
    /// Used by executors that woke up for nothing, or decided to sleep.
    pub idle_executors: u64,
    /// Used for all else: metrics, trace, control socket, starting and stopping threads, and taking ended
    /// guests apart.
    pub rest: u64,
}

impl CpuAccount {
    /// The account of a run that executed `vcpus`, from its scheduler's report. All zero if that does not charge CPU time.
    pub(crate) fn of_report<'a>(
        report: &RunnerReport,
        vcpus: impl Iterator<Item = &'a VcpuAccount>,
    ) -> Self {
        if report.process_ns == 0 {
            return Self::default();
        }
        let idle_ns = report.executors.iter().map(|e| e.unassigned_ns).sum();
        Self::new(report.process_ns, vcpus, idle_ns)
    }

    /// The account of a process that used `process_ns` while executors ran `vcpus`. The executors used `idle_ns` of
    /// that without running a vCPU.
    #[must_use]
    pub fn new<'a>(
        process_ns: u64,
        vcpus: impl Iterator<Item = &'a VcpuAccount>,
        idle_ns: u64,
    ) -> Self {
        let charged_ns = vcpus.map(|vcpu| vcpu.counters.charged_ns).sum();
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
