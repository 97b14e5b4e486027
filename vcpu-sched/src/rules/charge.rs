//! The donor is charged for what ran.

use crate::classes::cbs::Charged;
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::ScState;
use crate::state::cpu_table::Running;
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Charges the CPU time of a decision that ended at `now` to its donor.
    pub(crate) fn charge(&mut self, running: &Running, ran: CpuTime, now: Ns) {
        let donor = running.donor;
        let overrun = self.vcpus[donor]
            .sc
            .class
            .overrun(ran, self.config.slice_ns);
        if running.deferred.is_some() {
            self.counting.counters_mut(donor).deferral_debt_ns += overrun.0;
        }
        self.deliver(donor, ran, now);
        let inputs = self.fair_inputs(donor);
        let class = &mut self.vcpus[donor].sc.class;
        match class.charge(ran, running.slice_ends, now, &inputs) {
            Charged::InBudget => {}
            Charged::Postponed => self.move_behind_equals(donor),
            Charged::Throttled(at) => {
                self.move_behind_equals(donor);
                self.throttle(donor, at, now);
            }
        }
        self.follow_budget(donor);
        self.settle_change(donor, now);
    }

    /// The scheduling context of `vcpu` has no budget before `at`.
    pub(crate) fn throttle(&mut self, vcpu: VcpuId, at: Ns, now: Ns) {
        self.dequeue(vcpu);
        let sc = &mut self.vcpus[vcpu].sc;
        (sc.state, sc.throttled_since) = (ScState::Throttled, now);
        self.set_timer(TimerId::Sc(vcpu), at, now);
        self.emit(now, Event::Throttle(vcpu, at));
    }

    /// The scheduling context of `vcpu`, which is throttled, gets its new budget.
    pub(crate) fn replenish(&mut self, vcpu: VcpuId, now: Ns) {
        self.end_throttling(vcpu, now);
        self.settle_late_budget(vcpu, now);
        let sc = &mut self.vcpus[vcpu].sc;
        let still_in_debt_until = sc.class.replenish(now);
        sc.state = ScState::Off;
        self.follow_budget(vcpu);
        self.move_behind_equals(vcpu);
        self.emit(now, Event::Replenish(vcpu));
        self.settle_change(vcpu, now);
        if let Some(at) = still_in_debt_until {
            self.throttle(vcpu, at, now);
            return;
        }
        self.workers.retry_for(self.vcpus[vcpu].guest);
        self.requeue(vcpu);
        self.kick_for(vcpu, now);
    }

    /// `donor` has been charged on `cpu` for `ran`, perhaps for several slices: virtual time passes with
    /// them.
    pub(crate) fn advance_by_slices(&mut self, cpu: CpuId, donor: VcpuId, ran: CpuTime) {
        let (slice, sharers) = (self.config.slice_ns, self.sharers(donor));
        if let Some(tag) = self.vcpus[donor].sc.class.tag_after(ran, slice, sharers) {
            self.advance_virtual_time(cpu, tag);
        }
    }
}
