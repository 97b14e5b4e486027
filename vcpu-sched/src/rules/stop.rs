//! What happens when a vCPU stops: which claim is charged, what the vCPU published, where the claims go.

use crate::classes::cbs::Charged;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::proxy::Proxy;
use crate::scheduler::Scheduler;
use crate::state::blocked_on::Hints;
use crate::state::contexts::{ExecState, Running, ScState, SchedClass};
use crate::state::timer_queue::{sc_timer, wake_timer};

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Against its will: its time is up, or something more urgent came.
    Preempted,
    /// By its own doorbell; it could go on.
    Rang,
    /// It has nothing to run until it is woken, or until the time given, ns.
    Halted(Option<Ns>),
    /// Its guest has ended.
    Ended,
}

impl<E: Events> Scheduler<E> {
    /// `cpu` has stopped what it ran, which used `ran` ns of CPU time since the last charge and
    /// said `hints`. Call [`Scheduler::pick`] next. Does nothing on a CPU that runs nothing.
    ///
    /// The order is the rule: first the charge, then what the vCPU published, then the claims.
    pub fn stop(&mut self, cpu: CpuId, why: StopReason, hints: Hints, ran: Ns, now: Ns) {
        let Some(running) = self
            .cpus
            .get_mut(cpu.index())
            .and_then(|c| c.running.take())
        else {
            return;
        };
        self.cpus[cpu.index()].choosing = true;
        self.looking.insert(cpu);
        if self.present.contains(cpu) {
            self.idle.insert(cpu);
        }
        self.unsliced.remove(cpu);
        self.busy.remove(cpu.0);
        let Running {
            donor,
            curr,
            deferred,
            ..
        } = running;
        self.pass_slices(cpu, donor, ran);
        self.charge(cpu, running, ran, now);
        self.emit(
            now,
            Event::Stop {
                cpu,
                donor,
                curr,
                ran,
            },
        );

        let v = &mut self.vcpus[curr.index()];
        v.ec.hints = hints;
        if deferred {
            if why == StopReason::Rang || hints.depth == 0 {
                v.ec.deferral.kept();
            } else {
                v.ec.deferral.expired();
                v.counters.deferrals_expired += 1;
            }
        }
        let against_its_will = (why == StopReason::Preempted).then_some(hints.holds());
        self.cpus[cpu.index()].left = Some((curr, against_its_will));
        self.settle_execution(curr, why, now);
        self.note_wait(curr, hints, now);

        if self.vcpus[curr.index()].sc.state == ScState::Proxied {
            self.forgive_misses(curr, now);
            self.vcpus[curr.index()].sc.state = ScState::Off;
            self.requeue(curr);
            if !self.may_run_on(curr, cpu) {
                // The CPUs of the pool have changed; `pick` does not look after it.
                self.preempt_for(curr, now);
            }
        }
        if self.vcpus[donor.index()].sc.state == ScState::OnCpu(cpu) {
            self.vcpus[donor.index()].sc.state = ScState::Off;
            self.requeue(donor);
            // `pick` finds a CPU for claims that stay in this CPU's queues.
            if let ScState::Queued(domain) = self.vcpus[donor.index()].sc.state
                && !self.domains[domain].cpus.contains(cpu)
            {
                self.stay_or_go_home(donor, cpu, now);
            }
        }
        self.unpark_here(cpu, curr, now);
        self.check();
    }

    /// A claim that came to the queue of `cpu` because of its holder's pinning goes back to its own queue,
    /// unless the vCPU that it carries can go on here. From its own queue it would come back at once, and
    /// kick a CPU on each way.
    fn stay_or_go_home(&mut self, claim: VcpuId, cpu: CpuId, now: Ns) {
        if let Proxy::Run { curr, .. } = self.find_proxy(claim, cpu, now) {
            let domain = self.vcpus[curr.index()].ec.domain;
            self.dequeue(claim);
            self.enqueue(claim, domain);
        } else {
            self.preempt_for(claim, now);
        }
    }

    /// The donor pays for what `run` ran.
    fn charge(&mut self, cpu: CpuId, running: Running, ran: Ns, now: Ns) {
        let Running {
            donor,
            curr,
            deferred,
            ..
        } = running;
        let executed = &mut self.vcpus[curr.index()].counters;
        executed.runtime_ns += ran;
        if donor != curr {
            executed.received_ns += ran;
        }
        if let SchedClass::Deadline(server) = &self.vcpus[donor.index()].sc.class {
            // Up to when the budget was used up: a deadline after that is kept.
            let left = server.budget().max(0).unsigned_abs();
            self.count_misses(donor, now.saturating_sub(ran.saturating_sub(left)));
        }
        let yields = std::mem::take(&mut self.cpus[cpu.index()].yields);
        let slice = self.config.slice_ns;
        let sharers = self.guests[self.vcpus[donor.index()].guest.index()].runnable;
        let payer = &mut self.vcpus[donor.index()];
        let virtual_time = self.domains[payer.ec.domain].virtual_time;
        payer.counters.charged_ns += ran;
        if donor != curr {
            payer.counters.donated_ns += ran;
        }
        let (moved, throttled) = match &mut payer.sc.class {
            SchedClass::Deadline(server) => {
                let left = server.budget().max(0).unsigned_abs();
                let charged = server.charge(ran, now);
                if deferred {
                    payer.counters.deferral_debt_ns += ran.saturating_sub(left);
                }
                match charged {
                    Charged::InBudget => (false, None),
                    Charged::Postponed => (true, None),
                    Charged::Throttled(at) => (true, Some(at)),
                }
            }
            SchedClass::Fair(fair) => {
                if deferred {
                    payer.counters.deferral_debt_ns += ran.saturating_sub(fair.left(slice));
                }
                let ended = fair.charge(ran, slice, sharers, virtual_time);
                if yields && !ended {
                    fair.end_slice(sharers);
                }
                (ended || yields, None)
            }
        };
        if moved {
            self.to_back_of_equals(donor);
        }
        if let Some(at) = throttled {
            self.throttle(donor, at, now);
        }
        self.count_misses(donor, now);
    }

    /// No budget for this claim before `at`.
    pub(crate) fn throttle(&mut self, claim: VcpuId, at: Ns, now: Ns) {
        self.dequeue(claim);
        let v = &mut self.vcpus[claim.index()];
        v.sc.state = ScState::Throttled;
        v.sc.throttled_since = now;
        v.counters.throttles += 1;
        self.set_timer(sc_timer(claim), at, now);
        self.emit(now, Event::Throttle(claim, at));
    }

    /// Where the execution context is now.
    fn settle_execution(&mut self, curr: VcpuId, why: StopReason, now: Ns) {
        let v = &mut self.vcpus[curr.index()];
        match why {
            StopReason::Ended => self.finish(curr, now),
            _ if v.ec.ending => self.finish(curr, now),
            StopReason::Halted(_) if v.ec.wake_pending => {
                v.ec.wake_pending = false;
                v.ec.state = ExecState::Runnable { since: now };
            }
            StopReason::Halted(wake_at) => {
                v.ec.state = ExecState::Halted;
                if let SchedClass::Fair(fair) = &mut v.sc.class {
                    let sharers = self.guests[v.guest.index()].runnable;
                    fair.end_slice(sharers);
                }
                self.count_runnable(curr, -1);
                if let Some(at) = wake_at {
                    self.set_timer(wake_timer(curr), at, now);
                }
                self.emit(now, Event::Halt(curr));
            }
            StopReason::Preempted | StopReason::Rang => {
                v.ec.state = ExecState::Runnable { since: now }
            }
        }
    }

    /// Draws the edge that the vCPU's record asks for, if it makes sense: within its guest, to
    /// another vCPU.
    fn note_wait(&mut self, waiter: VcpuId, hints: Hints, now: Ns) {
        let gone = self.vcpus[waiter.index()].ec.state == ExecState::Gone;
        let Some(wait) = hints.wait.filter(|_| self.config.proxy && !gone) else {
            return;
        };
        let same_guest = self
            .vcpus
            .get(wait.holder.index())
            .is_some_and(|holder| holder.guest == self.vcpus[waiter.index()].guest);
        if same_guest && wait.holder != waiter {
            self.blocked_on.set(waiter, wait);
            self.emit(
                now,
                Event::EdgeOn {
                    waiter,
                    holder: wait.holder,
                },
            );
        }
    }

    /// A claim that is on no CPU goes back into the queue if it has something to carry. One whose
    /// own vCPU runs meanwhile on someone else's budget need not compete: it comes back when that
    /// vCPU stops.
    pub(crate) fn requeue(&mut self, claim: VcpuId) {
        debug_assert_eq!(self.vcpus[claim.index()].sc.state, ScState::Off);
        if let ExecState::Running(_) = self.vcpus[claim.index()].ec.state {
            self.vcpus[claim.index()].sc.state = ScState::Proxied;
        } else if self.is_eligible(claim) {
            let domain = self.vcpus[claim.index()].ec.domain;
            self.enqueue(claim, domain);
        }
    }

    /// Whether the vCPU could run, or sleeps on a mutex whose holder its claim could carry.
    pub(crate) fn is_eligible(&self, claim: VcpuId) -> bool {
        match self.vcpus[claim.index()].ec.state {
            ExecState::Runnable { .. } => true,
            ExecState::Halted => self.blocked_on.edge(claim).is_some_and(|wait| {
                self.config.proxy && wait.kind == crate::state::blocked_on::WaitKind::Block
            }),
            ExecState::Running(_) | ExecState::Gone => false,
        }
    }
}
