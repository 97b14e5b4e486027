//! What a run looks like at one moment. The JSON form is documented in `docs/control.md`.

use serde::{Deserialize, Serialize};

/// [`Snapshot::version`].
pub const VERSION: u32 = 2;

/// A run. Times are nanoseconds; counters count from the start of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows when a field changes its meaning or goes; new fields do not change it.
    pub version: u32,
    /// Process id of the run.
    pub pid: u32,
    /// Host's monotonic clock.
    pub now_ns: u64,
    /// Whether preempted holders run on their waiters' budgets.
    pub proxy: bool,
    /// The host CPUs of the pool.
    pub cpus: Vec<Cpu>,
    /// The vCPUs of all guests, in order.
    pub vcpus: Vec<Vcpu>,
}

/// A host CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub cpu: usize,
    /// It cannot be used at the moment: it is offline, or not for this process.
    #[serde(default)]
    pub away: bool,
    /// The vCPU that runs, as `guest/index`; none if idle.
    pub run: Option<String>,
    /// The vCPU whose budget pays.
    pub donor: Option<String>,
    /// If they differ, the number that names the lock within the guest.
    pub lock: Option<u64>,
    /// Spent on guests.
    pub busy_ns: u64,
    /// Asleep for want of work.
    pub idle_ns: u64,
    /// Taken by the host for other things.
    pub host_steal_ns: u64,
}

/// A vCPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vcpu {
    /// Name of its guest.
    pub guest: String,
    /// Its index in the guest.
    pub index: u32,
    /// `running`, `carrying`, `runnable`, `parked`, `throttled`, `halted` or `gone`.
    pub state: String,
    /// The host CPU, if it runs or carries.
    pub cpu: Option<usize>,
    /// The vCPU that it waits for.
    pub waits_for: Option<String>,
    /// Its reservation, such as `5ms/10ms,hard`.
    pub reservation: Option<String>,
    /// What is in force of it while host CPUs are away, if not all is.
    #[serde(default)]
    pub reduced_to: Option<String>,
    /// It is pinned to host CPUs that are all away, and runs elsewhere.
    #[serde(default)]
    pub displaced: bool,
    /// What is left of the budget; less than zero is debt.
    pub budget_ns: Option<i64>,
    /// Time to the deadline, if it lies ahead.
    pub deadline_in_ns: Option<u64>,
    /// Run, on whichever budget.
    pub ran_ns: u64,
    /// Charged to its budget, whoever ran.
    pub charged_ns: u64,
    /// Part of `charged_ns` that other threads spent for it.
    pub elsewhere_ns: u64,
    /// Part of `charged_ns` in which another ran.
    pub donated_ns: u64,
    /// Part of `ran_ns` that another paid for.
    pub received_ns: u64,
    /// Runnable and not running, with a budget: it waited for a CPU.
    pub waited_ns: u64,
    /// Runnable and not running, without a budget.
    pub throttled_wait_ns: u64,
    /// Of its time on a CPU, what the host gave to others.
    pub host_steal_ns: u64,
    /// Without budget, whether or not it could have run.
    pub throttled_ns: u64,
    /// Times put on a CPU.
    pub switches: u64,
    /// Times put on another CPU than it ran on before.
    #[serde(default)]
    pub migrations: u64,
    /// Times taken off a CPU against its will.
    pub preemptions: u64,
    /// Part of them in which it held a lock.
    pub holder_preemptions: u64,
    /// Times put on a CPU on another's budget.
    pub proxied: u64,
    /// Preemptions put off.
    pub deferrals: u64,
    /// Deadlines missed, one for each period.
    pub deadline_misses: u64,
}

impl Vcpu {
    /// Its name, as `guest/index`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.guest, self.index)
    }
}
