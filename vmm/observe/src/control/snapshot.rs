//! The state of a run at one moment. The JSON form is documented in `docs/control.md`.

use serde::{Deserialize, Serialize};

use crate::counters::ControlValues;

/// [`PoolSnapshot::version`].
pub const VERSION: u32 = 2;

/// The state of a run. Times are nanoseconds; counters count from the start of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Grows when a field changes its meaning or is removed, and not when a field is added.
    pub version: u32,
    /// Process id of the run.
    pub pid: u32,
    /// Reading of the host's monotonic clock.
    pub now_ns: u64,
    /// Whether preempted holders run on their waiters' budgets.
    pub proxy: bool,
    /// The guests, in order.
    #[serde(default)]
    pub guests: Vec<GuestSnapshot>,
    /// The host CPUs of the pool.
    pub cpus: Vec<CpuSnapshot>,
    /// The vCPUs of all guests, in order.
    pub vcpus: Vec<VcpuSnapshot>,
}

/// A guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSnapshot {
    /// Its name.
    pub name: String,
    /// Where its hints come from at the moment, such as `page` or `inferred (preempt count)`.
    pub hints: String,
}

/// A host CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuSnapshot {
    /// Its number.
    pub cpu: usize,
    /// Whether it cannot be used at the moment: it is offline, or this process may not use it.
    #[serde(default)]
    pub away: bool,
    /// The vCPU that runs, as `guest/index`; `None` if the host CPU is idle.
    pub run: Option<String>,
    /// The vCPU whose budget is charged.
    pub donor: Option<String>,
    /// If `run` and `donor` differ, the number that names the lock within the guest. `None` if the lock is
    /// not known.
    pub lock: Option<u64>,
    /// Whether `run` runs only because it is suspected to hold the lock that `donor` waits for.
    #[serde(default)]
    pub suspect: bool,
    /// CPU time spent on guests.
    pub busy_ns: u64,
    /// Time asleep for want of work.
    pub idle_ns: u64,
    /// Time that the host took for other things.
    pub host_steal_ns: u64,
}

/// A vCPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VcpuSnapshot {
    /// Name of its guest.
    pub guest: String,
    /// Its index in the guest.
    pub index: u32,
    /// `running`, `carrying`, `runnable`, `parked`, `throttled`, `halted` or `gone`.
    pub state: String,
    /// The host CPU, if the vCPU is running or carrying.
    pub cpu: Option<usize>,
    /// The vCPU for which it waits.
    pub waits_for: Option<String>,
    /// Whether the vCPU `waits_for` is only suspected to hold what it waits for; otherwise the guest has
    /// published that.
    #[serde(default)]
    pub waits_for_suspect: bool,
    /// Whether it was seen to spin when it stopped last, and no vCPU is known or suspected that it waits for.
    #[serde(default)]
    pub spins: bool,
    /// Its reservation, such as `5ms/10ms,hard`.
    pub reservation: Option<String>,
    /// The reservation that is in force while host CPUs are away, if it is not the whole one.
    #[serde(default)]
    pub reduced_to: Option<String>,
    /// Whether it runs elsewhere because all host CPUs to which it is pinned are away.
    #[serde(default)]
    pub displaced: bool,
    /// What is left of the budget. A negative number is debt.
    pub budget_ns: Option<i64>,
    /// Time until the deadline, if that is in the future.
    pub deadline_in_ns: Option<u64>,
    /// The policy's counters, each of which is a field in JSON.
    #[serde(flatten)]
    pub counters: ControlValues,
}

impl VcpuSnapshot {
    /// Its name, as `guest/index`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.guest, self.index)
    }
}
