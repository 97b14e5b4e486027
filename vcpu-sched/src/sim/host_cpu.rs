//! A simulated host CPU: what it does, and until when.

use crate::ids::{Ns, VcpuId};

/// One host CPU.
#[derive(Clone, Debug)]
pub(crate) struct HostCpu {
    pub(crate) state: HostState,
    /// When the pending kick takes effect, ns.
    pub(crate) kick_at: Option<Ns>,
    /// What it ran last.
    pub(crate) last_run: Option<VcpuId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostState {
    /// Sleeps, until this time at most.
    Idle(Option<Ns>),
    Busy(Busy),
}

/// A decision being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) curr: VcpuId,
    pub(crate) since: Ns,
    /// What is left of the cost of the entry, ns. It is charged, but the vCPU gets nothing done.
    pub(crate) overhead: Ns,
    pub(crate) until: Option<Ns>,
}

impl HostCpu {
    pub(crate) const fn new() -> Self {
        Self {
            // It picks at once.
            state: HostState::Idle(Some(0)),
            kick_at: None,
            last_run: None,
        }
    }

    /// Whether it should stop what it does, or wake up, by `now`.
    pub(crate) fn is_due(&self, now: Ns) -> bool {
        let until = match self.state {
            HostState::Idle(until) => until,
            HostState::Busy(busy) => busy.until,
        };
        [until, self.kick_at]
            .into_iter()
            .flatten()
            .any(|at| at <= now)
    }
}
