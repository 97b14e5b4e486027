//! What follows from a change under the pool's lock, but has to wait until the lock is free: system
//! calls, and work that takes other locks.

use std::sync::Arc;

use vcpu_sched::{CpuSet, VcpuId, WorkerOrder};

use super::cpu_grant::GrantInbox;
use super::interrupt_sleep::InterruptSleep;
use super::owned_vcpu::OwnedVcpu;

/// Work to do once the pool's lock is released (`Pool::finish`).
#[must_use]
#[derive(Default)]
pub(crate) struct AfterUnlock {
    /// Executors to kick.
    pub(crate) kicks: CpuSet,
    /// vCPUs whose sleep on a thread of their own is to end.
    pub(crate) interrupts: Vec<(VcpuId, Arc<dyn InterruptSleep>)>,
    /// A vCPU to put to sleep on a thread of its own.
    pub(crate) to_sleep: Option<OwnedVcpu>,
    /// Orders of the policy for device threads.
    pub(crate) worker_orders: Vec<(Arc<GrantInbox>, WorkerOrder)>,
    /// vCPUs of ended guests, to be dropped.
    pub(crate) ended: Vec<OwnedVcpu>,
    /// What the pool had of guests that have left, to be dropped.
    pub(crate) forgotten: Vec<Box<dyn Send>>,
    /// Whether to wake the threads that wait for a change of a guest.
    pub(crate) wakes_waiters: bool,
}

impl AfterUnlock {
    /// The same, and puts `vcpu` to sleep on a thread of its own.
    pub(crate) fn and_sleep(self, vcpu: Option<OwnedVcpu>) -> Self {
        Self {
            to_sleep: vcpu,
            ..self
        }
    }
}
