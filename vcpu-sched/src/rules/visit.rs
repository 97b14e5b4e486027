//! Visits: a scheduling context competes in the queue of other CPUs than its vCPU's, because the holder for which
//! that vCPU waits may run only there (`Proxy::Move`).
//!
//! A visit ends when the holder cannot be carried there any longer: when it has released or handed over the lock,
//! sleeps, is gone, or may run elsewhere. Then the scheduling context competes in its own queue again. Otherwise it
//! would wait for a turn on CPUs that it does not need, while one of its own may have nothing to do.

use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};

impl<E: Events> Scheduler<E> {
    /// Whether the scheduling context of `vcpu` competes in another queue than its own.
    fn visits(&self, vcpu: VcpuId) -> bool {
        let v = &self.vcpus[vcpu];
        matches!(v.sc.state, ScState::Queued(domain) if domain != v.ec.domain)
    }

    /// `vcpu` waits for another vCPU than before, or for none: its scheduling context competes in its own queue. The
    /// pick of a CPU there moves it on if the vCPU for which it waits now is pinned elsewhere.
    pub(crate) fn end_visit(&mut self, vcpu: VcpuId, now: Ns) {
        if self.visits(vcpu) && self.is_eligible(vcpu) {
            self.dequeue(vcpu);
            self.requeue(vcpu);
            self.kick_for(vcpu, now);
        }
    }

    /// `holder` has stopped: the visits of those that it keeps waiting no longer, or could not be carried by, end.
    pub(crate) fn end_visits_for_stopped(&mut self, holder: VcpuId, now: Ns) {
        let mut next = self.blocked_on.first_waiter(holder);
        while let Some(waiter) = next {
            next = self.blocked_on.next_waiter(waiter);
            if !self.visits(waiter) {
                continue;
            }
            let runnable = matches!(self.vcpus[holder].ec.state, ExecState::Runnable { .. });
            if self
                .blocked_on
                .edge(waiter)
                .is_some_and(|wait| self.is_stale(&wait))
            {
                self.counting.counters_mut(waiter).stale_edges += 1;
                self.drop_edge(waiter, now);
                self.end_visit(waiter, now);
            } else if !runnable {
                self.end_visit(waiter, now);
            }
        }
    }

    /// `holder` may run on other CPUs than before: the visits of those that wait for it end.
    pub(crate) fn end_visits_for_moved(&mut self, holder: VcpuId, now: Ns) {
        let mut next = self.blocked_on.first_waiter(holder);
        while let Some(waiter) = next {
            next = self.blocked_on.next_waiter(waiter);
            self.end_visit(waiter, now);
        }
    }
}
