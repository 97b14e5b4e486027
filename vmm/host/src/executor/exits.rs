//! What an executor does about each exit of its vCPU.

use baton_machine::{Doorbell, Exit};
use baton_os::sys;
use vcpu_sched::{CpuId, Hints, Ns, StopReason};

use super::assignment::Assignment;
use super::exit_latency::ExitLatency;
use super::looks::{Looks, Verdict};
use super::owned_vcpu::OwnedVcpu;
use super::pool::Pool;

/// Where halts do not end `KVM_RUN`, or wakes of halted vCPUs cannot be noticed, it is checked this often,
/// ns, whether a vCPU runs.
pub(crate) const HALT_POLL_NS: Ns = 1_000_000;

/// What follows an exit.
pub(super) enum ExitAction {
    /// The same vCPU goes on.
    Resume,
    /// The vCPU stops, and goes back to the pool.
    Stop(StopReason),
    /// The same against its will, with these hints.
    Preempt(Hints),
    /// The vCPU has halted, and sleeps in `KVM_RUN` until an interrupt.
    Sleep,
}

/// Handles the exits on one CPU.
pub(super) struct ExitHandler {
    cpu: CpuId,
    /// Whether halted vCPUs of this process can sleep in `KVM_RUN`.
    can_sleep: bool,
    latency: ExitLatency,
}

impl ExitHandler {
    pub(super) fn new(cpu: CpuId, can_sleep: bool) -> Self {
        Self {
            cpu,
            can_sleep,
            latency: ExitLatency::default(),
        }
    }

    /// Handles `exit` of the vCPU that runs.
    pub(super) fn handle(
        &mut self,
        pool: &Pool,
        assignment: &mut Assignment,
        exit: Exit,
    ) -> ExitAction {
        match exit {
            Exit::Handled | Exit::Debug => ExitAction::Resume,
            Exit::Interrupted => self.interrupted(pool, assignment),
            Exit::Doorbell(doorbell) => {
                let action = self.doorbell(pool, &assignment.vcpu, doorbell);
                match (action, assignment.until) {
                    // Another process may ring on whatever the time is, and no timer of this one ends its run.
                    (ExitAction::Resume, Some(until)) if sys::monotonic_ns() >= until => {
                        self.interrupted(pool, assignment)
                    }
                    (action, _) => action,
                }
            }
            Exit::Halted => self.halted(&assignment.vcpu),
            Exit::Ended => {
                // The thread of a vCPU in another process may end alone.
                if assignment.vcpu.record().has_ended() {
                    pool.remove_guest(assignment.vcpu.record());
                }
                ExitAction::Stop(StopReason::Ended)
            }
        }
    }

    /// A signal ended the run, or kept it from beginning: a kick, or the timer.
    fn interrupted(&mut self, pool: &Pool, assignment: &mut Assignment) -> ExitAction {
        let now = sys::monotonic_ns();
        let kicked = pool.kick_target(self.cpu).take_kick();
        if !kicked && assignment.until.is_none_or(|until| now < until) {
            return self.look(pool, assignment, now);
        }
        if let Some(until) = assignment.until {
            self.latency.measured(until, now);
        }
        let hints = assignment.vcpu.hints();
        assignment.end_turn(&hints);
        if self.defer(pool, assignment, &hints, now) {
            ExitAction::Resume
        } else {
            ExitAction::Preempt(hints)
        }
    }

    /// Lets a vCPU that holds a lock run on for a moment, if the policy grants that.
    fn defer(&self, pool: &Pool, assignment: &mut Assignment, hints: &Hints, now: Ns) -> bool {
        if hints.depth == 0 {
            return false;
        }
        // The lock is released at the end of this statement.
        let deferred = pool.lock().defer(self.cpu, hints, now);
        let Some(until) = deferred else { return false };
        assignment.show_deferral();
        let entries = self.latency.before_release(hints.wait.is_some());
        let end = until.saturating_add(entries);
        assignment.until = Some(end);
        if hints.is_guess {
            let pace = assignment.vcpu.look_pace();
            assignment.looks = Some(Looks::for_deferral(now, self.entry_latency(), pace));
        }
        true
    }

    /// Looks at the vCPU of `assignment`, if it is time.
    fn look(&mut self, pool: &Pool, assignment: &mut Assignment, now: Ns) -> ExitAction {
        let is_due = |looks: &&mut Looks| looks.next() <= now;
        let Some(looks) = assignment.looks.as_mut().filter(is_due) else {
            return ExitAction::Resume;
        };
        if looks.measures_exits() {
            self.latency.measured(looks.next(), now);
        }
        let hints = assignment.vcpu.hints();
        assignment.vcpu.count_look();
        let pace = assignment.vcpu.look_pace();
        let runs_on = match looks.look(&hints, now, pace) {
            Verdict::RunsOn => true,
            Verdict::Stops => false,
            Verdict::Spins => {
                // The lock is released at the end of this statement.
                let suspects = pool.lock().sched.suspects(self.cpu);
                looks.spins(suspects, now, pace)
            }
        };
        if runs_on {
            return ExitAction::Resume;
        }
        assignment.end_turn(&hints);
        ExitAction::Preempt(hints)
    }

    /// An estimate of the time, ns, that an entry into the guest takes.
    pub(super) fn entry_latency(&self) -> Ns {
        self.latency.before_release(false)
    }

    fn halted(&self, vcpu: &OwnedVcpu) -> ExitAction {
        let can_sleep = match vcpu {
            OwnedVcpu::Local(_) => self.can_sleep,
            OwnedVcpu::Foreign(_) => true,
        };
        if can_sleep {
            ExitAction::Sleep
        } else {
            // Nothing reports when it wakes, so that is checked soon.
            let check_at = sys::monotonic_ns().saturating_add(HALT_POLL_NS);
            ExitAction::Stop(StopReason::Halted(Some(check_at)))
        }
    }

    fn doorbell(&self, pool: &Pool, vcpu: &OwnedVcpu, doorbell: Doorbell) -> ExitAction {
        match doorbell {
            Doorbell::Wait => ExitAction::Stop(StopReason::Rang),
            Doorbell::Release { to } => self.released(pool, vcpu, to),
            Doorbell::Idle => ExitAction::Stop(StopReason::Halted(vcpu.idle_until())),
            Doorbell::Wake { target } => {
                self.wake(pool, vcpu, target);
                ExitAction::Resume
            }
        }
    }

    /// `vcpu` has released a lock for which others wait, and may have handed it to vCPU `to`.
    fn released(&self, pool: &Pool, vcpu: &OwnedVcpu, to: Option<u32>) -> ExitAction {
        let handed = vcpu.handed_lock();
        let mut state = pool.lock();
        let now = sys::monotonic_ns();
        let to = to.and_then(|to| vcpu.ids().to_policy(to));
        let (Some(lock), Some(to)) = (handed, to) else {
            state.sched.release(self.cpu, to, now);
            return ExitAction::Stop(StopReason::Rang);
        };
        state.sched.hand_over(self.cpu, lock, to, now);
        let after = state.after_unlock();
        drop(state);
        pool.finish(after);
        ExitAction::Resume
    }

    /// `vcpu` wakes its sibling `target`.
    fn wake(&self, pool: &Pool, vcpu: &OwnedVcpu, target: u32) {
        let Some(target) = vcpu.ids().to_policy(target) else {
            return;
        };
        let after = pool.lock().wake(self.cpu, target, sys::monotonic_ns());
        // If the policy has this CPU decide again, the kick keeps the executor out of the guest.
        pool.finish(after);
    }
}
