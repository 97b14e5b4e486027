//! Waking: a vCPU has something to run, a claim has something to spend.

use crate::classes::cbs::Woken;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, SchedClass};
use crate::state::timer_queue::{sc_timer, wake_timer};

impl<E: Events> Scheduler<E> {
    /// The vCPU has something to run. If it is not halted, its next halt returns at once, so that
    /// a wake-up which overtakes a halt is not lost.
    pub fn wake(&mut self, vcpu: VcpuId, now: Ns) {
        self.wake_since(vcpu, now, now);
    }

    /// [`Scheduler::wake`] for a reason that is there since `since`: a timer on which nobody had to look
    /// in time (`timers.rs`). Its claim has asked for its budget since then.
    pub(crate) fn wake_since(&mut self, vcpu: VcpuId, since: Ns, now: Ns) {
        let Some(v) = self.vcpus.get_mut(vcpu.index()) else {
            return;
        };
        match v.ec.state {
            ExecState::Gone => return,
            ExecState::Runnable { .. } | ExecState::Running(_) => {
                v.ec.wake_pending = true;
                return;
            }
            ExecState::Halted => v.ec.state = ExecState::Runnable { since },
        }
        self.clear_timer(wake_timer(vcpu));
        self.count_runnable(vcpu, 1);
        self.drop_edge(vcpu, now);
        self.emit(now, Event::Wake(vcpu));
        match self.vcpus[vcpu.index()].sc.state {
            ScState::Off => self.activate(vcpu, since, now),
            ScState::Parked(_) => {
                self.dequeue(vcpu);
                self.activate(vcpu, since, now);
            }
            // Its claim carries a holder: it gets its CPU back.
            ScState::OnCpu(cpu) => self.kick(cpu, now),
            // In the queue as a donor, perhaps one of another pinning.
            ScState::Queued(_) => {
                self.dequeue(vcpu);
                self.requeue(vcpu);
                self.preempt_for(vcpu, now);
            }
            ScState::Throttled | ScState::Proxied => {}
        }
        self.preempt_for_woken(vcpu, now);
        self.unpark_waiters(vcpu, now);
        self.check();
    }

    /// A claim that asked for nothing asks again, since `since`.
    fn activate(&mut self, claim: VcpuId, since: Ns, now: Ns) {
        debug_assert_eq!(self.vcpus[claim.index()].sc.state, ScState::Off);
        self.to_back_of_equals(claim);
        self.count_unsliced(now);
        let virtual_time = self.domains[self.vcpus[claim.index()].ec.domain].virtual_time;
        let sharers = self.guests[self.vcpus[claim.index()].guest.index()].runnable;
        let slice = self.config.slice_ns;
        let woken = match &mut self.vcpus[claim.index()].sc.class {
            SchedClass::Deadline(server) => server.wake_since(since, now),
            SchedClass::Fair(fair) => {
                fair.wake(virtual_time, slice, sharers);
                Woken::Eligible
            }
        };
        match woken {
            Woken::Eligible => {
                self.requeue(claim);
                self.preempt_for(claim, now);
            }
            Woken::ThrottledUntil(at) => self.throttle(claim, at, now),
        }
    }

    /// Best-effort vCPUs that run alone run without slices, so virtual time has stood still since they
    /// were picked. It catches up here; otherwise a vCPU that wakes now would be owed all that time.
    fn count_unsliced(&mut self, now: Ns) {
        for cpu in self.unsliced.iter() {
            if let Some(running) = self.cpus[cpu.index()].running {
                let ran = now.saturating_sub(running.since);
                self.pass_slices(cpu, running.donor, ran);
            }
        }
    }

    /// `donor`'s claim has run for `ran` ns on `cpu`, perhaps for several slices.
    pub(crate) fn pass_slices(&mut self, cpu: CpuId, donor: VcpuId, ran: Ns) {
        let payer = &self.vcpus[donor.index()];
        if let SchedClass::Fair(fair) = &payer.sc.class {
            let sharers = self.guests[payer.guest.index()].runnable;
            let tag = fair.tag_after(ran, self.config.slice_ns, sharers);
            self.pass_virtual_time(cpu, tag);
        }
    }

    /// `holder` stopped running, woke up, or is gone: the claims parked behind it compete again. While
    /// it runs or sleeps on, they would only be set aside again.
    pub(crate) fn unpark_waiters(&mut self, holder: VcpuId, now: Ns) {
        if !matches!(self.vcpus[holder.index()].ec.state, ExecState::Running(_)) {
            self.look_again(holder, now);
        }
    }

    /// Called when `holder` stops on `cpu`, before the next pick. Claims parked behind it that may run on
    /// `cpu` compete in that pick. Claims pinned elsewhere wait until after it: if their CPUs were kicked
    /// now and the holder then resumed here, the kick would be wasted, and two holders whose waiters are
    /// pinned to each other's CPU would preempt each other for ever.
    pub(crate) fn unpark_here(&mut self, cpu: CpuId, holder: VcpuId, now: Ns) {
        let mut next = self.parked.first(holder);
        while let Some(claim) = next {
            next = self.parked.next(claim);
            if self.may_run_on(claim, cpu) {
                self.dequeue(claim);
                self.activate(claim, now, now);
            }
        }
        self.cpus[cpu.index()].stopped = Some(holder);
    }

    /// The claims parked behind `holder` compete again.
    pub(crate) fn look_again(&mut self, holder: VcpuId, now: Ns) {
        while let Some(claim) = self.parked.first(holder) {
            self.dequeue(claim);
            self.activate(claim, now, now);
        }
    }

    pub(crate) fn sc_timer_fires(&mut self, claim: VcpuId, due: Ns, now: Ns) {
        debug_assert!(!self.has_timer(sc_timer(claim)));
        match self.vcpus[claim.index()].sc.state {
            ScState::Throttled => self.replenish(claim, now),
            ScState::Parked(_) => {
                // It was set aside behind a halted holder for long enough: its own vCPU runs and looks.
                self.drop_edge(claim, now);
                self.dequeue(claim);
                self.activate(claim, due, now);
            }
            _ => debug_assert!(
                false,
                "a claim timer belongs to a throttled or parked claim"
            ),
        }
    }

    /// A throttled claim gets its new budget.
    fn replenish(&mut self, claim: VcpuId, now: Ns) {
        let v = &mut self.vcpus[claim.index()];
        v.end_throttling(now);
        if let SchedClass::Deadline(server) = &mut v.sc.class {
            server.replenish(now);
        }
        v.sc.state = ScState::Off;
        self.to_back_of_equals(claim);
        self.emit(now, Event::Replenish(claim));
        self.workers.look_again(self.vcpus[claim.index()].guest);
        self.requeue(claim);
        self.preempt_for(claim, now);
    }
}
