//! When budgets are promised, delivered and lost (`classes/delivery.rs`): the moments at which a scheduling
//! context begins or ceases to compete, is charged, or gets a budget.

use crate::classes::delivery::{Delivery, Demand};
use crate::classes::sched_class::SchedClass;
use crate::counters::Counters;
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, VcpuState};

impl VcpuState {
    fn demand(&self) -> Demand {
        match self.sc.state {
            ScState::Queued(_) | ScState::OnCpu(_) => Demand::Competes,
            // One that is parked waits for a vCPU that runs or sleeps: a CPU would be of no use to it.
            ScState::Parked(_) | ScState::Proxied | ScState::Throttled | ScState::Off => {
                Demand::None
            }
        }
    }

    /// Settles the deadlines that have passed at `now`. Returns how many were missed.
    pub(crate) fn settle(
        &mut self,
        counters: &mut Counters,
        demand: Demand,
        taken: Ns,
        now: Ns,
    ) -> u64 {
        let SchedClass::Deadline(server) = &self.sc.class else {
            return 0;
        };
        self.sc
            .delivery
            .settle(counters, server, demand, taken, now)
    }

    /// The scheduling context, which is throttled, gets its budget at `now`, and could have had it before. If its
    /// vCPU could run all the time, the budget was promised then, and the deadlines that have passed since are
    /// missed. Returns how many.
    pub(crate) fn settle_late_budget(
        &mut self,
        counters: &mut Counters,
        taken: Ns,
        now: Ns,
    ) -> u64 {
        let due = self.sc.class.replenished_at();
        let could_run = matches!(self.ec.state, ExecState::Runnable { since } if since <= due);
        let SchedClass::Deadline(server) = &mut self.sc.class else {
            return 0;
        };
        let mut in_time = *server;
        if !could_run || in_time.replenish(due.min(now)).is_some() || in_time.deadline() >= now {
            return 0;
        }
        server.take_repaid();
        let delivery = &mut self.sc.delivery;
        delivery.follow_late(counters, &mut in_time);
        delivery.settle(counters, &in_time, Demand::Competes, taken, now)
    }
}

impl<E: Events> Scheduler<E> {
    /// What the host has taken from the CPUs on which `vcpu` may run, ns.
    pub(crate) fn host_taken_from(&self, vcpu: VcpuId) -> Ns {
        self.domains[self.vcpus[vcpu].ec.domain].host_taken
    }

    /// The host took `time` from `cpu`.
    pub(crate) fn host_took_from(&mut self, cpu: CpuId, time: Ns) {
        for domain in self.domains.iter_mut() {
            if domain.cpus.contains(cpu) {
                domain.host_taken += time;
            }
        }
    }

    /// `cpu` picks at `now`. If it slept until a moment before that, the host woke it late.
    pub(crate) fn count_late_awakening(&mut self, cpu: CpuId, now: Ns) {
        if let Some(until) = self.cpus[cpu].asleep().flatten() {
            self.host_took_from(cpu, now.saturating_sub(until));
        }
    }

    /// Settles the deadlines of `vcpu` that have passed at `now`, by what its scheduling context does.
    #[inline]
    pub(crate) fn settle_deadlines(&mut self, vcpu: VcpuId, now: Ns) {
        self.settle_as(vcpu, self.vcpus[vcpu].demand(), now);
    }

    /// The same for a scheduling context that did not compete up to `now`.
    pub(crate) fn settle_without_demand(&mut self, vcpu: VcpuId, now: Ns) {
        self.settle_as(vcpu, Demand::None, now);
    }

    fn settle_as(&mut self, vcpu: VcpuId, demand: Demand, now: Ns) {
        let taken = self.host_taken_from(vcpu);
        let counters = self.counting.counters_mut(vcpu);
        if self.vcpus[vcpu].settle(counters, demand, taken, now) > 0 {
            self.emit(now, Event::Miss(vcpu));
        }
    }

    /// The server of `vcpu` may have another budget than before.
    #[inline]
    pub(crate) fn follow_budget(&mut self, vcpu: VcpuId) {
        let taken = self.host_taken_from(vcpu);
        let sc = &mut self.vcpus[vcpu].sc;
        if let Some(server) = sc.class.server_mut() {
            let counters = self.counting.counters_mut(vcpu);
            sc.delivery.follow(counters, server, taken);
        }
    }

    /// `ran`, which ended at `now`, is about to be charged to `donor`.
    #[inline]
    pub(crate) fn deliver(&mut self, donor: VcpuId, ran: CpuTime, now: Ns) {
        let sc = &mut self.vcpus[donor].sc;
        let Some(server) = sc.class.server() else {
            return;
        };
        let budget = server.budget().max(0).unsigned_abs();
        let counters = self.counting.counters_mut(donor);
        let in_time = sc.delivery.by_deadline(ran.0, now);
        sc.delivery.deliver(counters, in_time);
        if sc.delivery.pending() > 0 || budget > in_time {
            self.settle_deadlines(donor, now);
        }
        let counters = self.counting.counters_mut(donor);
        let delivery = &mut self.vcpus[donor].sc.delivery;
        delivery.deliver(counters, ran.0 - in_time);
    }

    /// `spent`, which other threads have used for `vcpu`, is about to be charged to it.
    pub(crate) fn deliver_elsewhere(&mut self, vcpu: VcpuId, spent: CpuTime, now: Ns) {
        self.settle_deadlines(vcpu, now);
        let sc = &mut self.vcpus[vcpu].sc;
        let Some(server) = sc.class.server_mut() else {
            return;
        };
        if sc.state == ScState::Off {
            // It is charged as if it woke.
            server.wake(now);
            self.follow_budget(vcpu);
        }
        let counters = self.counting.counters_mut(vcpu);
        self.vcpus[vcpu].sc.delivery.deliver(counters, spent.0);
    }

    /// `vcpu`, which is throttled, gets its budget at `now`.
    pub(crate) fn settle_late_budget(&mut self, vcpu: VcpuId, now: Ns) {
        self.settle_without_demand(vcpu, now);
        let taken = self.host_taken_from(vcpu);
        let counters = self.counting.counters_mut(vcpu);
        if self.vcpus[vcpu].settle_late_budget(counters, taken, now) > 0 {
            self.emit(now, Event::Miss(vcpu));
        }
    }

    /// `vcpu` competes again at `now`, since `since`. What it could have had by the deadlines that have passed
    /// since is lost.
    pub(crate) fn settle_late_wake_up(&mut self, vcpu: VcpuId, since: Ns, now: Ns) {
        self.settle_without_demand(vcpu, since);
        let sc = &mut self.vcpus[vcpu].sc;
        let Some(&server) = sc.class.server() else {
            return;
        };
        let (mut woken, counters) = (server, self.counting.counters_mut(vcpu));
        woken.wake(since);
        if since < now && woken.budget() > 0 && woken.deadline() < now {
            sc.delivery.follow_late(counters, &mut woken);
            self.settle_as(vcpu, Demand::Competes, now);
        }
    }

    /// `vcpu` ran on another vCPU's budget up to `now`, and its own scheduling context competes again.
    pub(crate) fn resume_promise(&mut self, vcpu: VcpuId, now: Ns) {
        let sc = &mut self.vcpus[vcpu].sc;
        if let ScState::Queued(_) = sc.state
            && let Some(server) = sc.class.server()
        {
            let counters = self.counting.counters_mut(vcpu);
            sc.delivery.resume(counters, server, now);
        }
    }

    /// The reservation of `vcpu` ends at `now`.
    pub(crate) fn end_promise(&mut self, vcpu: VcpuId, now: Ns) {
        self.settle_deadlines(vcpu, now);
        let taken = self.host_taken_from(vcpu);
        let sc = &mut self.vcpus[vcpu].sc;
        sc.delivery.give_up(self.counting.counters_mut(vcpu));
        sc.delivery = Delivery::new(taken);
    }
}
