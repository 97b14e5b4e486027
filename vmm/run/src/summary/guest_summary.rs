//! The numbers of one guest.

use baton_machine::GuestEnd;
use serde::{Deserialize, Serialize};

use super::vcpu_summary::VcpuSummary;
use super::workload::Workload;

/// The numbers of one guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GuestSummary {
    /// Its name.
    pub name: String,
    /// How it ended, in words.
    pub end: String,
    /// Whether that is a success.
    pub ok: bool,
    /// The code it exited with, if it did.
    pub exit_code: Option<u32>,
    /// How often it was started again. What it reported, and how it ended, is that of the last time.
    pub restarts: u32,
    /// Where its hints came from at last, such as `page` or `inferred (preempt count)`. `None` under a scheduler
    /// that uses no hints.
    pub hints: Option<String>,
    /// CPU time that threads spent for it which did not run its vCPUs. It is charged to its vCPUs.
    pub elsewhere_ns: Elsewhere,
    /// Bytes of its console that were dropped, because they were not read in time or could not be written.
    pub console_dropped: u64,
    /// What its vCPUs report together.
    pub workload: Workload,
    /// Its vCPUs, in order.
    pub vcpus: Vec<VcpuSummary>,
}

impl GuestSummary {
    /// The numbers of a guest that ended as `end`, with those of its vCPUs.
    #[must_use]
    pub fn new(name: &str, end: &GuestEnd, console_dropped: u64, vcpus: Vec<VcpuSummary>) -> Self {
        let workload = Workload::of(&vcpus);
        Self {
            name: name.to_owned(),
            end: end.to_string(),
            ok: end.is_success(),
            exit_code: end.exit_code(),
            restarts: 0,
            hints: None,
            elsewhere_ns: Elsewhere::of(&vcpus),
            console_dropped,
            workload,
            vcpus,
        }
    }
}

/// CPU time that was spent for a guest beside the runs of its vCPUs, by the thread that spent it, ns. It is
/// charged to the scheduling contexts of its vCPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// By the threads on which its halted vCPUs slept, and by executors on which they slept.
    pub parked: u64,
    /// By the threads of its devices.
    pub devices: u64,
    /// By the thread that writes what it prints.
    pub console: u64,
}

impl Elsewhere {
    fn of(vcpus: &[VcpuSummary]) -> Self {
        let sum = |part: fn(&VcpuSummary) -> u64| vcpus.iter().map(part).sum::<u64>();
        let parked = sum(|v| v.account.counters.sleep_ns);
        let devices = sum(|v| v.account.counters.devices_ns);
        Self {
            parked,
            devices,
            console: sum(|v| v.account.counters.elsewhere_ns).saturating_sub(parked + devices),
        }
    }
}
