//! How the vCPUs of a run are scheduled.

use vcpu_sched::PolicyKind;

/// The scheduler that decides which vCPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SchedMode {
    /// Baton's own policy on one executor per host CPU.
    Baton,
    /// Equal slices in turn on one executor per host CPU, for comparison: without reservations, weights and
    /// proxying.
    RoundRobin,
    /// A thread per vCPU under the host kernel's default policy.
    Host,
    /// A thread per vCPU under the host kernel's SCHED_DEADLINE.
    HostDeadline,
}

impl SchedMode {
    /// The policy of the executors; `None` if the host kernel schedules vCPUs.
    #[must_use]
    pub fn policy(self) -> Option<PolicyKind> {
        match self {
            Self::Baton => Some(PolicyKind::Deadline),
            Self::RoundRobin => Some(PolicyKind::RoundRobin),
            Self::Host | Self::HostDeadline => None,
        }
    }

    /// The name of the scheduler, as users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Baton => "baton",
            Self::RoundRobin => "round-robin",
            Self::Host => "host",
            Self::HostDeadline => "host-deadline",
        }
    }
}

/// Whether an executor calls `KVM_RUN` itself or through a thread of the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VcpuThreads {
    /// By kernel version: before Linux 6.13 a vCPU that changes thread costs milliseconds.
    Auto,
    /// A thread per vCPU.
    On,
    /// Executors run vCPUs directly.
    Off,
}

/// Whether a run with reservations may start where the halt or the wake of a vCPU is noticed late,
/// because perf events are not permitted or KVM is too old. A halted vCPU then keeps its host CPU from
/// others for up to 1 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LateHalts {
    /// A run with a reservation is refused.
    Refuse,
    /// It runs all the same.
    Allow,
}

/// Which of the options that have a default were given a value. A default requests nothing, so
/// `baton run --sched host` needs no `--proxy off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// [`RunConfig::proxy`](crate::RunConfig::proxy).
    pub proxy: bool,
    /// [`RunConfig::defer`](crate::RunConfig::defer).
    pub defer: bool,
    /// [`RunConfig::slice`](crate::RunConfig::slice).
    pub slice: bool,
}
