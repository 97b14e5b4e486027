//! Timers, and which CPU is their timekeeper.
//!
//! A vCPU has two: that of its scheduling context (a replenishment, or the end of a bounded wait) and its
//! own, the time at which it is to be woken. When a timer is due, a scheduling context becomes eligible,
//! and that is the only reason to interrupt a CPU for a timer. So:
//!
//! 1. A CPU that sleeps is the timekeeper for all timers, and no other CPU is interrupted for any.
//! 2. Otherwise a CPU that runs something is interrupted only for a timer whose scheduling context may have
//!    that CPU and could take it from the donor there: a reservation whose deadline, once it is eligible, is
//!    earlier; or, where the donor is best effort, any. A best-effort vCPU waits until a quarter of the
//!    slice under way has passed, for before that it could not end the slice (`classes/fair.rs`), so that
//!    many wake-ups in a row cost one interruption.
//! 3. A timer for which no CPU is interrupted is handled at the next decision of any CPU.
//!
//! The CPU that is interrupted is the one that does the least urgent work in the timer's domain, as for a
//! scheduling context that becomes eligible at once (`kick.rs`).

use crate::classes::rank::Rank;
use crate::events::Events;
use crate::ids::{CpuId, DomainId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::ScState;
use crate::state::cpu_table::Running;
use crate::state::timer_queue::{TimerHeap, TimerId};

impl<E: Events> Scheduler<E> {
    /// When the earliest timer is due, ns.
    #[must_use]
    pub fn next_timer(&self) -> Option<Ns> {
        self.first_timer().map(|(at, _)| at)
    }

    fn first_timer(&self) -> Option<(Ns, TimerId)> {
        let domains = self.domains.iter();
        domains.filter_map(|domain| domain.timers.first()).min()
    }

    fn heap_of(&mut self, timer: TimerId) -> &mut TimerHeap {
        let v = &self.vcpus[timer.vcpu()];
        let timers = &mut self.domains[v.ec.domain].timers;
        if v.sc.class.is_deadline() {
            &mut timers.deadline
        } else {
            &mut timers.fair
        }
    }

    /// Sets a timer, and sees to it that a CPU attends to it in time if one should.
    pub(crate) fn set_timer(&mut self, timer: TimerId, at: Ns, now: Ns) {
        self.heap_of(timer).set(timer, at);
        self.attend_to(timer, at, now);
    }

    /// The scheduling context of `vcpu` has another deadline than before, or will have when it competes again, so
    /// its timers, if they are set, may need a timekeeper now.
    pub(crate) fn deadline_changed(&mut self, vcpu: VcpuId, now: Ns) {
        for timer in [TimerId::Sc(vcpu), TimerId::Wake(vcpu)] {
            if let Some(at) = self.heap_of(timer).due(timer) {
                self.attend_to(timer, at, now);
            }
        }
    }

    fn attend_to(&mut self, timer: TimerId, at: Ns, now: Ns) {
        // A CPU that is about to pick handles the timers that are due, and then finds timekeepers for the
        // others.
        if self.idle_cpu_keeps(at, now) || self.cpus.any_will_pick() {
            return;
        }
        self.find_timekeeper(self.vcpus[timer.vcpu()].ec.domain, now);
    }

    pub(crate) fn clear_timer(&mut self, timer: TimerId) {
        self.heap_of(timer).clear(timer);
    }

    /// Clears a timer. Returns when it was due, ns, if it was set.
    pub(crate) fn take_timer(&mut self, timer: TimerId) -> Option<Ns> {
        let heap = self.heap_of(timer);
        let due = heap.due(timer);
        heap.clear(timer);
        due
    }

    pub(crate) fn has_timer(&self, timer: TimerId) -> bool {
        let v = &self.vcpus[timer.vcpu()];
        let timers = &self.domains[v.ec.domain].timers;
        timers.deadline.due(timer).is_some() || timers.fair.due(timer).is_some()
    }

    /// Handles the timers that are due.
    pub(crate) fn fire_timers(&mut self, now: Ns) {
        while let Some((due, timer)) = self.first_timer().filter(|&(at, _)| at <= now) {
            self.clear_timer(timer);
            match timer {
                TimerId::Wake(vcpu) => self.wake_since(vcpu, due, now),
                TimerId::Sc(vcpu) => self.sc_timer_fires(vcpu, due, now),
            }
        }
    }

    fn sc_timer_fires(&mut self, vcpu: VcpuId, due: Ns, now: Ns) {
        match self.vcpus[vcpu].sc.state {
            ScState::Throttled => self.replenish(vcpu, now),
            ScState::Parked(_) => self.end_bounded_wait(vcpu, due, now),
            _ => debug_assert!(false, "{vcpu} is throttled or parked if its timer is set"),
        }
    }

    /// When `cpu` should reschedule for a timer before `limit`; `None`: it need not. `donor` is charged
    /// there, in a slice that may be ended from `preemptible_at` on. Rules 1 and 2.
    pub(crate) fn timer_for(
        &self,
        cpu: CpuId,
        donor: VcpuId,
        preemptible_at: Ns,
        limit: Option<Ns>,
    ) -> Option<Ns> {
        let domains = self.domains.ids();
        domains
            .filter(|&domain| self.domains[domain].cpus.contains(cpu))
            .filter_map(|domain| self.timer_of(domain, donor, preemptible_at, limit))
            .min()
    }

    /// The same for the timers of one domain.
    pub(crate) fn timer_of(
        &self,
        domain: DomainId,
        donor: VcpuId,
        preemptible_at: Ns,
        limit: Option<Ns>,
    ) -> Option<Ns> {
        let timers = &self.domains[domain].timers;
        let sc = &self.vcpus[donor].sc;
        let rank = sc.rank();
        let limit = limit.unwrap_or(Ns::MAX);
        let deadline = timers.deadline.first_where(limit, |timer, at| {
            timer.vcpu() == donor
                || self
                    .deadline_when_due(timer, at)
                    .is_some_and(|deadline| Rank::Deadline(deadline, 0).preempts(rank))
        });
        let own = timers.fair.due(TimerId::Wake(donor));
        let fair = timers.fair.first_at().filter(|_| !rank.is_deadline());
        let fair = fair.map(|at| at.max(preemptible_at));
        [deadline, own, fair]
            .into_iter()
            .flatten()
            .filter(|&at| at < limit)
            .min()
    }

    /// The deadline that a reservation will have when its timer is due at `at`; `None` if it will not be
    /// eligible then.
    fn deadline_when_due(&self, timer: TimerId, at: Ns) -> Option<Ns> {
        let sc = &self.vcpus[timer.vcpu()].sc;
        let server = sc.class.server()?;
        match (sc.state, timer) {
            (ScState::Throttled, TimerId::Sc(_)) => Some(server.deadline_after_replenishment()),
            (ScState::Throttled, TimerId::Wake(_)) => None,
            _ => Some(server.deadline_when_woken(at)),
        }
    }

    /// A CPU has found work, so it is the timekeeper no longer, or another one does the least urgent work
    /// now: other CPUs may have to reschedule for timers.
    pub(crate) fn find_timekeepers(&mut self, now: Ns) {
        let Some(first) = self.next_timer() else {
            return;
        };
        // The next CPU that picks comes here too, or falls asleep and handles all timers.
        if !self.idle_cpu_keeps(first, now) && !self.cpus.any_will_pick() {
            for domain in self.domains.place_ids() {
                self.find_timekeeper(domain, now);
            }
        }
    }

    /// Sees to it that the CPU which does the least urgent work in `domain` reschedules in time for its
    /// timers. No CPU sleeps, and none is about to pick.
    fn find_timekeeper(&mut self, domain: DomainId, now: Ns) {
        let cpus = self.domains.get(domain).map(|domain| domain.cpus);
        let Some((_, cpu)) = cpus.and_then(|cpus| self.cpus.least_urgent(cpus)) else {
            return;
        };
        let Some(&Running {
            donor,
            preemptible_at,
            until,
            ..
        }) = self.cpus.running(cpu)
        else {
            return;
        };
        if self
            .timer_of(domain, donor, preemptible_at, until)
            .is_some()
        {
            self.kick(cpu, now);
        }
    }

    /// Whether a sleeping CPU is the timekeeper for a timer that is due at `at`. A CPU that would sleep past
    /// it is kicked, so that it learns of the timer. CPUs that are about to pick do not count: they may
    /// find work, and then find timekeepers themselves.
    pub(crate) fn idle_cpu_keeps(&mut self, at: Ns, now: Ns) -> bool {
        let mut too_long = None;
        for cpu in self.cpus.idle().iter() {
            let Some(until) = self.cpus[cpu].asleep() else {
                continue;
            };
            if until.is_some_and(|wakes| wakes <= at) {
                return true;
            }
            too_long = too_long.or(Some(cpu));
        }
        if let Some(cpu) = too_long {
            self.kick(cpu, now);
        }
        too_long.is_some()
    }
}
