//! Waking: a vCPU has something to run.

use crate::classes::cbs::Woken;
use crate::events::{Event, Events};
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// `vcpu` has something to run. If it is not halted, its next halt returns at once, so that a wake-up
    /// which overtakes a halt is not lost.
    pub fn wake(&mut self, vcpu: VcpuId, now: Ns) {
        self.wake_since(vcpu, now, now);
    }

    /// [`Scheduler::wake`] for a timer that was due at `since`, to which no CPU had to attend in time
    /// (`timers.rs`). The scheduling context has been eligible since then.
    pub(crate) fn wake_since(&mut self, vcpu: VcpuId, since: Ns, now: Ns) {
        let Some(v) = self.vcpus.get(vcpu) else {
            return;
        };
        let (state, awake) = (v.ec.state, self.awake(vcpu, since));
        let ec = &mut self.vcpus[vcpu].ec;
        match state {
            ExecState::Gone => return,
            ExecState::Runnable { .. } | ExecState::Running(_) | ExecState::Paused => {
                ec.wake_pending = true;
                return;
            }
            ExecState::Halted => (ec.state, ec.wake_at) = (awake, None),
        }
        self.clear_timer(TimerId::Wake(vcpu));
        self.count_runnable(vcpu, 1);
        self.drop_edge(vcpu, now);
        self.emit(now, Event::Wake(vcpu));
        if awake == ExecState::Paused {
            return;
        }
        match self.vcpus[vcpu].sc.state {
            ScState::Off => self.activate(vcpu, since, now),
            ScState::Parked(_) => {
                self.dequeue(vcpu);
                self.activate(vcpu, since, now);
            }
            // It carries a holder.
            ScState::OnCpu(_) => self.kick_for(vcpu, now),
            // It competes for a holder, perhaps in the queue of another domain.
            ScState::Queued(_) => {
                self.dequeue(vcpu);
                self.requeue(vcpu);
                self.kick_for(vcpu, now);
            }
            ScState::Throttled | ScState::Proxied => {}
        }
        self.kick_for_woken(vcpu, now);
        self.unpark_waiters(vcpu, now);
        self.check();
    }

    /// A scheduling context that did not compete competes again, since `since`.
    pub(crate) fn activate(&mut self, vcpu: VcpuId, since: Ns, now: Ns) {
        debug_assert_eq!(self.vcpus[vcpu].sc.state, ScState::Off);
        self.move_behind_equals(vcpu);
        self.advance_by_unsliced(now);
        self.settle_late_wake_up(vcpu, since, now);
        let inputs = self.fair_inputs(vcpu);
        let woken = self.vcpus[vcpu].sc.class.wake(since, now, &inputs);
        self.follow_budget(vcpu);
        match woken {
            Woken::Eligible => {
                self.requeue(vcpu);
                self.kick_for(vcpu, now);
            }
            Woken::ThrottledUntil(at) => self.throttle(vcpu, at, now),
        }
        self.settle_change(vcpu, now);
    }

    /// Best-effort vCPUs that run alone run without slices, so virtual time has stood still since they were
    /// picked. It catches up here; otherwise a vCPU that wakes now would be owed all that time.
    fn advance_by_unsliced(&mut self, now: Ns) {
        for cpu in self.cpus.unsliced().iter() {
            if let Some(running) = self.cpus.running(cpu) {
                self.advance_by_slices(cpu, running.donor, running.ran(now));
            }
        }
    }
}
