//! What a vCPU that does not run waits for: the counters of time in which nothing is charged.
//!
//! A vCPU that could run and does not run waits for one of two things, and each is counted apart: for a
//! CPU, or for a budget.

use crate::classes::delivery::Demand;
use crate::counters::Counters;
use crate::events::Events;
use crate::ids::{CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, VcpuState};

impl VcpuState {
    /// The vCPU runs from `now` on, or never again: its wait is counted.
    fn end_wait(&mut self, counters: &mut Counters, now: Ns) {
        let ExecState::Runnable { since } = self.ec.state else {
            return;
        };
        if self.sc.state == ScState::Throttled {
            let until = self.throttled_until(now);
            self.ec.throttled += until.saturating_sub(since.max(self.sc.throttled_since));
        }
        let throttled = std::mem::take(&mut self.ec.throttled);
        counters.throttled_wait_ns += throttled;
        counters.waited_ns += now.saturating_sub(since).saturating_sub(throttled);
    }

    /// The scheduling context, which is throttled, gets a budget at `now` or has had one for a while, or
    /// needs none from `now` on: the throttling is counted.
    fn end_throttling(&mut self, counters: &mut Counters, now: Ns) {
        let (from, until) = (self.sc.throttled_since, self.throttled_until(now));
        counters.throttled_ns += until.saturating_sub(from);
        if let ExecState::Runnable { since } = self.ec.state {
            self.ec.throttled += until.saturating_sub(since.max(from));
        }
    }

    /// When the throttling ended, or `now` if it has not. From its end on the vCPU waits for a CPU, even if
    /// no CPU has handled the timer yet.
    fn throttled_until(&self, now: Ns) -> Ns {
        self.sc.class.replenished_at().min(now)
    }
}

impl<E: Events> Scheduler<E> {
    /// Counts the wait of `vcpu`, which ends at `now`.
    pub(crate) fn end_wait(&mut self, vcpu: VcpuId, now: Ns) {
        self.vcpus[vcpu].end_wait(self.counting.counters_mut(vcpu), now);
    }

    /// Counts the throttling of `vcpu`, which has ended.
    pub(crate) fn end_throttling(&mut self, vcpu: VcpuId, now: Ns) {
        self.vcpus[vcpu].end_throttling(self.counting.counters_mut(vcpu), now);
    }

    /// The host gave `time` of the time in which `vcpu` was on a CPU to others. Nothing is charged for that. To be
    /// called before [`Scheduler::stop`], so that budgets whose deadlines have passed are lost to the host. Does
    /// nothing for a vCPU that does not exist.
    pub fn host_took(&mut self, vcpu: VcpuId, time: CpuTime) {
        let Some(v) = self.vcpus.get(vcpu) else {
            return;
        };
        let state = v.ec.state;
        self.counting.counters_mut(vcpu).host_steal_ns += time.0;
        if let ExecState::Running(cpu) = state {
            self.host_took_from(cpu, time.0);
        }
    }

    /// The counters of a vCPU, with its waits that have ended; zeros for one that does not exist. See
    /// [`Scheduler::counters_at`].
    #[must_use]
    pub fn counters(&self, vcpu: VcpuId) -> Counters {
        self.counting.counters(vcpu).copied().unwrap_or_default()
    }

    /// The counters of a vCPU with what has not ended at `now`: its wait for a CPU or a budget, and the
    /// deadlines that have passed in it. Zeros for one that does not exist.
    #[must_use]
    pub fn counters_at(&self, vcpu: VcpuId, now: Ns) -> Counters {
        let mut counters = self.counters(vcpu);
        let Some(mut v) = self.vcpus.get(vcpu).cloned() else {
            return counters;
        };
        v.end_wait(&mut counters, now);
        let reduced = v.sc.reduced_since;
        counters.reduced_ns += reduced.map_or(0, |since| now.saturating_sub(since));
        let taken = self.host_taken_from(vcpu);
        match v.sc.state {
            ScState::Throttled => {
                v.end_throttling(&mut counters, now);
                v.settle_late_budget(&mut counters, taken, now);
            }
            ScState::Queued(_) => {
                v.settle(&mut counters, Demand::Competes, taken, now);
            }
            _ => {}
        }
        counters
    }
}
