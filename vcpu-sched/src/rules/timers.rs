//! Timers, and which CPU looks after which.
//!
//! A vCPU has two: its claim's (a replenishment, or the end of a bounded wait) and its own, the time at
//! which it wishes to wake up. When a timer is due, somebody's claim becomes eligible, and that is the
//! only reason to interrupt a CPU for it. So:
//!
//! 1. A CPU that sleeps looks after all timers, and no other CPU is interrupted for any.
//! 2. Otherwise a CPU that runs something is interrupted only for a timer whose claim may have that CPU
//!    and could take it from the one that pays there: a reserved claim whose deadline, once it is
//!    eligible, is earlier; or, where best effort runs, any. A best-effort claim waits until a quarter
//!    of the slice under way has passed, for before that it could not end it (`fair.rs`), so that many
//!    wake-ups in a row cost one interruption.
//! 3. A timer for which no CPU is interrupted is handled at the next decision of any CPU.
//!
//! The CPU that is interrupted is the one that does the least urgent work in the timer's domain, as for
//! a claim that becomes eligible at once (`preempt.rs`).

use crate::classes::rank::{Rank, more_urgent};
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{Running, ScState, SchedClass};
use crate::state::heap::Heap;
use crate::state::timer_queue::{owner, sc_timer, wake_timer};

impl<E: Events> Scheduler<E> {
    /// The earliest timer, ns.
    #[must_use]
    pub fn next_timer(&self) -> Option<Ns> {
        self.first_timer().map(|(at, _)| at)
    }

    fn first_timer(&self) -> Option<(Ns, u32)> {
        let first = |domain: &crate::state::domain::Domain| domain.timers.first();
        self.domains.iter().filter_map(first).min()
    }

    fn heap_of(&mut self, timer: u32) -> &mut Heap<Ns> {
        let v = &self.vcpus[owner(timer).index()];
        let timers = &mut self.domains[v.ec.domain].timers;
        match v.sc.class {
            SchedClass::Deadline(_) => &mut timers.reserved,
            SchedClass::Fair(_) => &mut timers.best_effort,
        }
    }

    /// Sets a timer, and sees to it that a CPU looks in time if one should.
    pub(crate) fn set_timer(&mut self, timer: u32, at: Ns, now: Ns) {
        self.heap_of(timer).set(timer, at);
        // A CPU that is about to pick handles the timers that are due, and then arms the others.
        if self.idle_keeps_timer(at, now) || !self.looking.is_empty() {
            return;
        }
        self.keep_timers(self.vcpus[owner(timer).index()].ec.domain, now);
    }

    pub(crate) fn clear_timer(&mut self, timer: u32) {
        self.heap_of(timer).remove(timer);
    }

    pub(crate) fn has_timer(&self, timer: u32) -> bool {
        let v = &self.vcpus[owner(timer).index()];
        let timers = &self.domains[v.ec.domain].timers;
        timers.reserved.contains(timer) || timers.best_effort.contains(timer)
    }

    /// Does what is due.
    pub(crate) fn fire_timers(&mut self, now: Ns) {
        while let Some((due, timer)) = self.first_timer().filter(|&(at, _)| at <= now) {
            self.clear_timer(timer);
            let vcpu = owner(timer);
            if timer == wake_timer(vcpu) {
                self.wake_since(vcpu, due, now);
            } else {
                self.sc_timer_fires(vcpu, due, now);
            }
        }
    }

    /// When `cpu`, on which `donor` pays, in a slice that may be ended from `preemptible_at` on, should look for
    /// the sake of a timer, before `limit`; `None`: it need not. Rules 1 and 2.
    pub(crate) fn timer_for(
        &self,
        cpu: CpuId,
        donor: VcpuId,
        preemptible_at: Ns,
        limit: Option<Ns>,
    ) -> Option<Ns> {
        let domains = 0..self.domains.len();
        domains
            .filter(|&domain| self.domains[domain].cpus.contains(cpu))
            .filter_map(|domain| self.timer_of(domain, donor, preemptible_at, limit))
            .min()
    }

    /// The same for the timers of one domain.
    pub(crate) fn timer_of(
        &self,
        domain: usize,
        donor: VcpuId,
        preemptible_at: Ns,
        limit: Option<Ns>,
    ) -> Option<Ns> {
        let timers = &self.domains[domain].timers;
        let rank = self.vcpus[donor.index()].sc.rank();
        let limit = limit.unwrap_or(Ns::MAX);
        let reserved = timers.reserved.first_where(limit, |timer, at| {
            owner(timer) == donor
                || self
                    .deadline_when_due(timer, at)
                    .is_some_and(|deadline| more_urgent(Rank::Deadline(deadline, 0), rank))
        });
        let own = timers.best_effort.key(wake_timer(donor));
        let best_effort = match &self.vcpus[donor.index()].sc.class {
            SchedClass::Deadline(_) => None,
            SchedClass::Fair(_) => timers
                .best_effort
                .first()
                .map(|(at, _)| at.max(preemptible_at)),
        };
        [reserved, own, best_effort]
            .into_iter()
            .flatten()
            .filter(|&at| at < limit)
            .min()
    }

    /// The deadline that a reserved claim will have when its timer is due at `at`; `None` if it will
    /// not be eligible then.
    fn deadline_when_due(&self, timer: u32, at: Ns) -> Option<Ns> {
        let vcpu = owner(timer);
        let sc = &self.vcpus[vcpu.index()].sc;
        let SchedClass::Deadline(server) = &sc.class else {
            return None;
        };
        match (sc.state, timer == sc_timer(vcpu)) {
            (ScState::Throttled, true) => Some(server.deadline_after_replenishment()),
            (ScState::Throttled, false) => None,
            _ => Some(server.deadline_when_woken(at)),
        }
    }

    /// A CPU has found work, so it does not look after all timers any more, or another one does the
    /// least urgent work now: others may have to look in time.
    pub(crate) fn keep_all_timers(&mut self, now: Ns) {
        let Some(first) = self.next_timer() else {
            return;
        };
        // The next CPU that picks comes here too, or falls asleep and handles all timers.
        if !self.idle_keeps_timer(first, now) && self.looking.is_empty() {
            for domain in 0..self.domains.len() {
                self.keep_timers(domain, now);
            }
        }
    }

    /// Sees to it that the CPU which does the least urgent work in `domain` looks in time for its
    /// timers. No CPU sleeps, and none is about to look.
    pub(crate) fn keep_timers(&mut self, domain: usize, now: Ns) {
        let Some((_, cpu)) = self.least_urgent(self.domains[domain].cpus) else {
            return;
        };
        let Some(Running {
            donor,
            preemptible_at,
            until,
            ..
        }) = self.cpus[cpu.index()].running
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

    /// Whether a sleeping CPU looks after the timer `at`. One that sleeps past it is kicked, so
    /// that it learns of it. CPUs that are about to pick do not count: they may find work, and then
    /// ask this themselves.
    pub(crate) fn idle_keeps_timer(&mut self, at: Ns, now: Ns) -> bool {
        let mut too_long = None;
        for cpu in self.idle.iter() {
            let c = &self.cpus[cpu.index()];
            if c.choosing || c.kicked {
                continue;
            }
            if c.sleeps_until.is_some_and(|wakes| wakes <= at) {
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
