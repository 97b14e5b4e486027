//! Who runs the vCPUs of a run.

use baton_config::{RunConfig, SchedMode, VcpuThreads};

/// Who runs the vCPUs of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Baton's executors, in the form that is the default on this host.
    Default,
    /// Baton's executors, each vCPU on a thread of its own.
    Threads,
    /// The executors of a pool in a process of its own; the guest is one, too.
    Pool,
    /// The host's scheduler, with a thread for each vCPU.
    Host,
}

impl Form {
    /// Those under our policy.
    pub(super) const OF_BATON: [Self; 3] = [Self::Default, Self::Threads, Self::Pool];

    /// Whether our policy decides.
    pub(super) const fn is_baton(self) -> bool {
        !matches!(self, Self::Host)
    }

    /// Sets what of `config` depends on it.
    pub(super) fn apply(self, config: &mut RunConfig) {
        config.sched = match self {
            Self::Host => SchedMode::Host,
            Self::Default | Self::Threads | Self::Pool => SchedMode::Baton,
        };
        if self == Self::Threads {
            config.vcpu_threads = VcpuThreads::On;
        }
    }
}
