//! What happens when a vCPU stops: first the charge (`charge.rs`), then what the vCPU has published
//! (`defer.rs`, `edges.rs`), then where the scheduling contexts go.

use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::Hints;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Against its will: its time is up, or something more urgent came.
    Preempted,
    /// It rang its doorbell. It could go on.
    Rang,
    /// It has nothing to run until it is woken, or until the time given, ns.
    Halted(Option<Ns>),
    /// Its guest has ended.
    Ended,
}

impl<E: Events> Scheduler<E> {
    /// `cpu` has stopped what it ran, which has used `ran` since the last charge, and of which `hints` are known
    /// now. Call [`Scheduler::pick`] next. Does nothing on a CPU that runs nothing.
    pub fn stop(&mut self, cpu: CpuId, why: StopReason, hints: Hints, ran: CpuTime, now: Ns) {
        let Some(running) = self.cpus.stop(cpu) else {
            return;
        };
        let (donor, curr) = (running.donor, running.curr);
        self.advance_by_slices(cpu, donor, ran);
        self.charge(&running, ran, now);
        let stop = Event::Stop {
            cpu,
            donor,
            curr,
            ran: ran.0,
        };
        self.emit(now, stop);
        if why == StopReason::Preempted {
            self.counting.preempted(cpu, hints.holds());
        }

        let before = std::mem::replace(&mut self.vcpus[curr].ec.hints, hints);
        self.count_guesses(curr, &before);
        self.settle_deferral(&running, why, &hints);
        self.settle_execution(curr, why, now);
        self.draw_edge(curr, &hints, now);
        self.settle_suspicion(&running, &before, &hints, now);
        self.note_contention(curr);
        self.end_visits_for_stopped(curr, now);

        self.return_proxied(curr, cpu, now);
        self.return_donor(donor, cpu, now);
        self.apply_pending_changes(curr, now);
        self.apply_pending_changes(donor, now);
        self.unpark_here(cpu, curr, now);
        self.check();
    }

    /// Where the execution context is now.
    fn settle_execution(&mut self, curr: VcpuId, why: StopReason, now: Ns) {
        let awake = self.awake(curr, now);
        let v = &mut self.vcpus[curr];
        v.ec.has_halted = matches!(why, StopReason::Halted(_));
        match why {
            StopReason::Ended => self.finish(curr, now),
            _ if v.ec.ending => self.finish(curr, now),
            StopReason::Halted(_) if v.ec.wake_pending => {
                v.ec.wake_pending = false;
                v.ec.state = awake;
            }
            StopReason::Halted(wake_at) => self.halt(curr, wake_at, now),
            StopReason::Preempted | StopReason::Rang => {
                v.ec.state = awake;
            }
        }
    }

    fn halt(&mut self, vcpu: VcpuId, wake_at: Option<Ns>, now: Ns) {
        let sharers = self.sharers(vcpu);
        let v = &mut self.vcpus[vcpu];
        v.ec.state = ExecState::Halted;
        v.sc.class.halt(sharers);
        if let ScState::OnCpu(cpu) = v.sc.state {
            // It carries another vCPU, while its own ran elsewhere.
            let rank = v.sc.rank();
            self.donor_rank_changed(cpu, rank, now);
        }
        self.count_runnable(vcpu, -1);
        if self.is_paused(vcpu) {
            self.vcpus[vcpu].ec.wake_at = wake_at;
        } else if let Some(at) = wake_at {
            self.set_timer(TimerId::Wake(vcpu), at, now);
        }
        self.emit(now, Event::Halt(vcpu));
    }

    /// `curr` ran on another vCPU's scheduling context: its own competes again, if it has something to
    /// compete for.
    fn return_proxied(&mut self, curr: VcpuId, cpu: CpuId, now: Ns) {
        if self.vcpus[curr].sc.state == ScState::Proxied {
            self.settle_without_demand(curr, now);
            self.vcpus[curr].sc.state = ScState::Off;
            self.requeue(curr);
            self.resume_promise(curr, now);
            self.kick_for_stopped(curr, false, cpu, now);
        }
    }

    /// The scheduling context of `donor` is not charged here any longer: it competes again, unless the
    /// charge has throttled it.
    fn return_donor(&mut self, donor: VcpuId, cpu: CpuId, now: Ns) {
        if self.vcpus[donor].sc.state == ScState::OnCpu(cpu) {
            self.vcpus[donor].sc.state = ScState::Off;
            if self.vcpus[donor].ec.state == ExecState::Gone {
                self.end_promise(donor, now);
            }
            self.requeue(donor);
            self.kick_for_stopped(donor, true, cpu, now);
        }
    }

    /// A scheduling context that is in no queue goes back into that of its domain, if it has something to
    /// run. If its own vCPU runs meanwhile on another vCPU's scheduling context, it need not compete, and
    /// comes back when that vCPU stops.
    pub(crate) fn requeue(&mut self, vcpu: VcpuId) {
        debug_assert_eq!(self.vcpus[vcpu].sc.state, ScState::Off);
        if let ExecState::Running(_) = self.vcpus[vcpu].ec.state {
            self.vcpus[vcpu].sc.state = ScState::Proxied;
        } else if self.is_eligible(vcpu) {
            self.enqueue(vcpu, self.vcpus[vcpu].ec.domain);
        }
    }
}
