//! What a vCPU that does not run waits for, and which deadlines pass meanwhile: the counters of time in
//! which nothing is charged.
//!
//! A vCPU that could run and does not run waits for one of two things, and each is counted apart: for a
//! CPU, or for a budget. A deadline that passes with budget left is missed; a budget that comes later
//! than that by several periods has missed the deadlines of all of them.

use crate::counters::Counters;
use crate::events::{Event, Events};
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, SchedClass, VcpuState};

impl VcpuState {
    /// The vCPU runs from `now` on, or never again: what it waited is counted.
    pub(crate) fn end_wait(&mut self, now: Ns) {
        let ExecState::Runnable { since } = self.ec.state else {
            return;
        };
        if self.sc.state == ScState::Throttled {
            let until = self.throttled_until(now);
            self.ec.throttled += until.saturating_sub(since.max(self.sc.throttled_since));
        }
        let throttled = std::mem::take(&mut self.ec.throttled);
        self.counters.throttled_wait_ns += throttled;
        self.counters.waited_ns += now.saturating_sub(since).saturating_sub(throttled);
    }

    /// The claim, which is throttled, has had a budget for a while, or needs none from `now` on.
    pub(crate) fn end_throttling(&mut self, now: Ns) {
        let (from, until) = (self.sc.throttled_since, self.throttled_until(now));
        self.counters.throttled_ns += until.saturating_sub(from);
        if let ExecState::Runnable { since } = self.ec.state {
            self.ec.throttled += until.saturating_sub(since.max(from));
        }
    }

    /// When the throttling of the claim ended, or `now` if it has not. From the end on the vCPU waits for a
    /// CPU, also if no CPU has handled the timer yet.
    fn throttled_until(&self, now: Ns) -> Ns {
        match &self.sc.class {
            SchedClass::Deadline(server) => server.replenished_at().min(now),
            SchedClass::Fair(_) => now,
        }
    }

    /// Deadlines that have passed at `now` with budget left and are not yet known: how many. They are
    /// known from here on.
    fn find_misses(&mut self, now: Ns) -> u64 {
        let SchedClass::Deadline(server) = &self.sc.class else {
            return 0;
        };
        let Some((count, last)) = server.missed(self.sc.missed, now) else {
            return 0;
        };
        self.sc.missed = last;
        count
    }
}

impl<E: Events> Scheduler<E> {
    /// Counts the deadlines of `claim` that have passed at `now` with budget left, each once.
    pub(crate) fn count_misses(&mut self, claim: VcpuId, now: Ns) {
        let v = &mut self.vcpus[claim.index()];
        let missed = v.find_misses(now);
        v.counters.deadline_misses += missed;
        if missed > 0 {
            self.emit(now, Event::Miss(claim));
        }
    }

    /// `claim` did not need its budget up to `now`, for its vCPU ran on another's: the deadlines that
    /// have passed meanwhile do not count.
    pub(crate) fn forgive_misses(&mut self, claim: VcpuId, now: Ns) {
        self.vcpus[claim.index()].find_misses(now);
    }

    /// The host gave `ns` of the time in which `vcpu` was on a CPU to others. Nobody pays for that.
    /// Does nothing for a vCPU that does not exist.
    pub fn host_took(&mut self, vcpu: VcpuId, ns: Ns) {
        if let Some(v) = self.vcpus.get_mut(vcpu.index()) {
            v.counters.host_steal_ns += ns;
        }
    }

    /// The counters of a vCPU with what is not over at `now`: its wait for a CPU or a budget, and the
    /// deadlines that have passed in it. Zeros for one that does not exist.
    #[must_use]
    pub fn counters_at(&self, vcpu: VcpuId, now: Ns) -> Counters {
        let Some(mut v) = self.vcpus.get(vcpu.index()).cloned() else {
            return Counters::default();
        };
        v.end_wait(now);
        let reduced = v.sc.reduced_since;
        v.counters.reduced_ns += reduced.map_or(0, |since| now.saturating_sub(since));
        match v.sc.state {
            ScState::Throttled => v.end_throttling(now),
            ScState::Queued(_) => v.counters.deadline_misses += v.find_misses(now),
            _ => {}
        }
        v.counters
    }
}
