//! The executor's main loop, on the thread that is pinned to one host CPU of the pool.
//!
//! ```text
//!            ┌────────────────────────────────────────────────────────────┐
//!            v                                                            │
//!   decide: give back what ran or slept, have the policy pick ──> End     │
//!            │                    │                       │               │
//!            │ Run                │ SleepInPlace          │ Sleep         │
//!            v                    v                       v               │
//!   serve: KVM_RUN,       sleep_in_place:         sleep: until            │
//!   account, handle       the halted vCPU and     a kick or               │
//!   the exit; again       the executor sleep      a timer                 │
//!            │ Stopped            │ Slept                 │ Nothing       │
//!            └────────────────────┴───────────────────────┴───────────────┘
//! ```
//!
//! A vCPU is given back and the next one picked under one hold of the pool's lock, so that the policy
//! never sees a CPU between the two.

use std::sync::Arc;
use std::time::Duration;

use baton_machine::{Exit, GuestEnd};
use baton_os::sys;
use vcpu_sched::{CpuId, CpuTime, Hints, Ns, StopReason};

use super::assignment::Assignment;
use super::exits::{ExitAction, ExitHandler, HALT_POLL_NS};
use super::foreign_run::ForeignRun;
use super::kick_handler;
use super::kick_target::KickTarget;
use super::local_vcpu::{FinishedRun, LocalVcpu};
use super::own_cpu::OwnCpu;
use super::owned_vcpu::OwnedVcpu;
use super::pool::Pool;
use super::pool_state::PoolState;
use super::probes::ExecutorProbes;
use super::switch::{OffCpu, show_switch};
use super::time_account::TimeAccount;
use super::vcpu_runner::VcpuRunner;
use super::watched_sleepers::WatchedSleepers;
use crate::halt::InPlaceEnd;
use crate::report::ExecutorReport;

/// One executor.
pub(crate) struct Executor<R> {
    cpu: CpuId,
    /// Runs vCPUs of this process.
    runner: R,
    /// Runs vCPUs of other processes.
    foreign: ForeignRun,
    exits: ExitHandler,
    time: TimeAccount,
    own_cpu: OwnCpu,
    /// vCPUs of other processes for whose wake it waits when there is nothing to run.
    sleepers: WatchedSleepers,
    /// Whether its host CPU could not be used at its last decision.
    is_away: bool,
    probes: ExecutorProbes,
}

/// What an executor does next.
enum Action {
    /// Run a vCPU.
    Run(Assignment),
    /// Sleep until the halted vCPU wakes, a kick, or the policy's next timer, ns.
    SleepInPlace(LocalVcpu, Option<Ns>),
    /// Sleep until a kick, or the policy's next timer, ns.
    Sleep(Option<Ns>),
    /// The pool stops.
    End,
}

/// What an executor gives back when it is done with its last action.
enum Returned {
    /// It has no vCPU.
    Nothing,
    /// A vCPU has run.
    Stopped(StoppedVcpu),
    /// A vCPU has slept in place, and has cost this much CPU time, ns.
    Slept(LocalVcpu, InPlaceEnd, Ns),
}

/// A vCPU that has run, and what the policy has to know of that.
struct StoppedVcpu {
    vcpu: OwnedVcpu,
    /// `None`: it has halted, and is to sleep in `KVM_RUN`.
    reason: Option<StopReason>,
    hints: Hints,
    /// CPU time to charge, ns.
    ran: Ns,
    /// CPU time that other threads have used for its guest, ns.
    rest: Ns,
    /// Time that the host gave to others since the last charge, ns.
    host_steal: Ns,
}

/// What a decision has to know of the vCPU that was given back.
struct GivenBack {
    /// A vCPU that has run, of which the guest has to see that it is off its CPU.
    stopped: Option<OffCpu>,
    /// A halted vCPU that has to sleep somewhere.
    sleeper: Option<OwnedVcpu>,
    /// Whether that can be on this thread.
    can_sleep_here: bool,
}

impl<R: VcpuRunner> Executor<R> {
    /// The calling thread becomes the executor of `cpu`, and runs vCPUs until the pool stops. If halted
    /// vCPUs `can_sleep`, they do so on other threads or on this one.
    pub(crate) fn run(
        pool: &Pool,
        cpu: CpuId,
        runner: R,
        can_sleep: bool,
        probes: ExecutorProbes,
    ) -> ExecutorReport {
        pool.kick_target(cpu).set_executor();
        let mut executor = Self {
            cpu,
            runner,
            foreign: ForeignRun::new(cpu, pool.host_cpus()[cpu.index()]),
            exits: ExitHandler::new(cpu, can_sleep),
            time: TimeAccount::begin(probes.gauges.clone()),
            own_cpu: OwnCpu::default(),
            sleepers: WatchedSleepers::default(),
            is_away: false,
            probes,
        };
        let mut returned = Returned::Nothing;
        loop {
            returned = match executor.decide(pool, returned) {
                Action::Run(assignment) => executor.serve(pool, assignment),
                Action::SleepInPlace(vcpu, timer) => executor.sleep_in_place(pool, vcpu, timer),
                Action::Sleep(timer) => executor.sleep(pool, timer),
                Action::End => return executor.time.end(),
            };
        }
    }

    /// Gives back what this executor had, and has the policy decide what it does next.
    fn decide(&mut self, pool: &Pool, returned: Returned) -> Action {
        pool.kick_target(self.cpu).take_kick();
        if !self.is_away {
            self.own_cpu.check(self.cpu, pool);
        }
        self.time.count_decision();

        let mut state = pool.lock();
        let now = sys::monotonic_ns();
        self.is_away = !state.sched.online_cpus().contains(self.cpu);
        let GivenBack {
            stopped,
            mut sleeper,
            can_sleep_here,
        } = self.give_back(&mut state, returned, now);
        let mut picked = state.pick(self.cpu, now);
        let storm = show_switch(&mut state, stopped.as_ref(), picked.as_mut(), now);
        let mut action = if let Some(assignment) = picked {
            Action::Run(assignment)
        } else if state.is_stopping() || pool.kick_target(self.cpu).ends() {
            Action::End
        } else {
            self.choose_sleep(&mut state, &mut sleeper, can_sleep_here)
        };
        let after = state.after_unlock();
        drop(state);
        // Its guest may have ended, and must not wait for the end of what this executor does next.
        drop(stopped);
        if let Some(OwnedVcpu::Foreign(vcpu)) = &sleeper {
            self.sleepers.add(vcpu.sleep());
        }
        pool.finish(after.and_sleep(sleeper));
        if storm && let Action::Run(assignment) = &mut action {
            assignment
                .vcpu
                .print_notice("rings its doorbell for nothing; the time that takes is its own");
        }
        action
    }

    /// Nothing is to run on this CPU: it sleeps, and `sleeper` with it if that `can_sleep_here`.
    fn choose_sleep(
        &self,
        state: &mut PoolState,
        sleeper: &mut Option<OwnedVcpu>,
        can_sleep_here: bool,
    ) -> Action {
        // While this CPU is away, other executors see to the policy's timers.
        let timer = state.sched.next_timer().filter(|_| !self.is_away);
        // A vCPU that stays here wakes no other thread, neither now nor when it wakes itself.
        match sleeper.take() {
            Some(OwnedVcpu::Local(vcpu)) if can_sleep_here => {
                state.sleep_in_place(vcpu.id(), self.cpu);
                Action::SleepInPlace(vcpu, timer)
            }
            other => {
                *sleeper = other;
                Action::Sleep(timer)
            }
        }
    }

    /// Gives back to the pool what this executor had.
    fn give_back(&self, state: &mut PoolState, returned: Returned, now: Ns) -> GivenBack {
        let mut given = GivenBack {
            stopped: None,
            sleeper: None,
            can_sleep_here: self.runner.can_sleep() && !self.is_away,
        };
        match returned {
            Returned::Nothing => {}
            Returned::Stopped(stopped) => {
                let (off_cpu, sleeper) = self.put_back(state, stopped, now);
                given.stopped = Some(off_cpu);
                given.sleeper = sleeper;
            }
            Returned::Slept(vcpu, end, spent) => {
                given.can_sleep_here &= end != InPlaceEnd::NeedsHaltThread;
                state
                    .sched
                    .charge_sleep(vcpu.id(), CpuTime(spent), None, now);
                let vcpu = OwnedVcpu::Local(vcpu);
                given.sleeper = state.end_sleep_in_place(vcpu, end == InPlaceEnd::Woken, now);
            }
        }
        given
    }

    /// Reports to the policy that a vCPU has stopped, and puts it back. Also returns the vCPU itself, if it
    /// is to sleep.
    fn put_back(
        &self,
        state: &mut PoolState,
        stopped: StoppedVcpu,
        now: Ns,
    ) -> (OffCpu, Option<OwnedVcpu>) {
        let StoppedVcpu {
            mut vcpu,
            reason,
            hints,
            ran,
            rest,
            host_steal,
        } = stopped;
        let id = vcpu.id();
        let reason = reason.or_else(|| keep_awake(state, &mut vcpu, now));
        vcpu.count_stop(reason, ran);
        let off_cpu = OffCpu::new(&vcpu, reason.unwrap_or(StopReason::Halted(None)));
        let for_policy = match vcpu.has_ended() {
            true => StopReason::Ended,
            false => off_cpu.reason(),
        };
        // Before the stop, which settles the deadlines that have passed.
        state.sched.host_took(id, CpuTime(host_steal));
        state
            .sched
            .stop(self.cpu, for_policy, hints, CpuTime(ran), now);
        state.charge_rest(id, rest, now);
        if reason.is_none() {
            return (off_cpu, state.send_to_sleep(vcpu));
        }
        state.put_back(vcpu);
        (off_cpu, None)
    }

    /// Runs a vCPU until the policy has to decide again.
    fn serve(&mut self, pool: &Pool, mut assignment: Assignment) -> Returned {
        let (id, index) = (assignment.vcpu.id(), assignment.vcpu.index());
        let in_policy = assignment.vcpu.ids().guest();
        let guest = Arc::clone(assignment.vcpu.record());
        assignment.begin_looks(self.exits.entry_latency());
        loop {
            let Some((back, exit)) = self.enter(pool, assignment) else {
                guest.end(GuestEnd::InternalError {
                    vcpu: index,
                    text: "the thread that ran it has failed".into(),
                });
                let ran = self.time.charge();
                pool.lock().lose(self.cpu, id, in_policy, ran);
                pool.remove_guest(&guest);
                return Returned::Nothing;
            };
            assignment = back;
            let (reason, hints) = match self.exits.handle(pool, &mut assignment, exit) {
                ExitAction::Resume => continue,
                ExitAction::Stop(reason) => (Some(reason), None),
                ExitAction::Preempt(hints) => (Some(StopReason::Preempted), Some(hints)),
                ExitAction::Sleep => (None, None),
            };
            return Returned::Stopped(self.stop(assignment.vcpu, reason, hints));
        }
    }

    /// Runs a vCPU until its next exit. `None`: it is lost with its thread.
    fn enter(&mut self, pool: &Pool, assignment: Assignment) -> Option<(Assignment, Exit)> {
        let Assignment {
            vcpu,
            until,
            looks,
            decision,
        } = assignment;
        let look = looks.map(|looks| looks.next());
        let timer = [until, look].into_iter().flatten().min();
        let target = pool.kick_target(self.cpu);
        let (vcpu, exit) = match vcpu {
            OwnedVcpu::Local(vcpu) => self.enter_local(vcpu, timer, target)?,
            OwnedVcpu::Foreign(mut vcpu) => {
                let (exit, ran) = self.foreign.run(&mut vcpu, timer, target);
                self.time.spent_elsewhere(ran);
                (OwnedVcpu::Foreign(vcpu), exit)
            }
        };
        self.probes.exit(self.cpu, vcpu.id(), &exit);
        let assignment = Assignment {
            vcpu,
            until,
            looks,
            decision,
        };
        Some((assignment, exit))
    }

    /// The same for a vCPU of this process, which runs until `timer`, ns, at the latest.
    fn enter_local(
        &mut self,
        vcpu: LocalVcpu,
        timer: Option<Ns>,
        target: &KickTarget,
    ) -> Option<(OwnedVcpu, Exit)> {
        let poll = (!self.runner.detects_halts())
            .then(|| sys::monotonic_ns().saturating_add(HALT_POLL_NS));
        let timer = [timer, poll].into_iter().flatten().min();
        let FinishedRun {
            vcpu,
            exit,
            elsewhere_ns,
        } = self.runner.run(vcpu, timer, target)?;
        self.time.spent_elsewhere(elsewhere_ns);
        Some((OwnedVcpu::Local(vcpu), exit))
    }

    /// Accounts for the run of `vcpu`, which stops for `reason`; `None`: it sleeps. `hints`: its hints, if they
    /// have been read since its exit.
    fn stop(
        &mut self,
        mut vcpu: OwnedVcpu,
        reason: Option<StopReason>,
        hints: Option<Hints>,
    ) -> StoppedVcpu {
        // A vCPU that is about to sleep has its timer limited there, and doorbells are rung too often for
        // it.
        let sleeps = reason.is_none() && !vcpu.kept_awake();
        if !sleeps && reason != Some(StopReason::Rang) {
            vcpu.limit_timer();
        }
        let hints = match reason {
            None | Some(StopReason::Halted(_)) => vcpu.hints_of_halted(),
            Some(_) => hints.unwrap_or_else(|| vcpu.hints()),
        };
        let rest = vcpu.take_rest(sys::monotonic_ns());
        let ran = self.time.charge();
        StoppedVcpu {
            vcpu,
            reason,
            hints,
            ran,
            rest,
            host_steal: self.time.take_host_steal(ran),
        }
    }

    /// Sleeps until a kick, or until `timer`, ns.
    fn sleep(&mut self, pool: &Pool, timer: Option<Ns>) -> Returned {
        self.time.leave_unassigned();
        let from = sys::monotonic_ns();
        let timeout = timer.map(|at| Duration::from_nanos(at.saturating_sub(from).max(1)));
        let target = pool.kick_target(self.cpu);
        if self.is_away || !self.sleepers.sleep(target, timeout) {
            target.sleep(timeout);
        }
        kick_handler::forget_missed();
        // The CPU time of waking up is charged to the vCPU that runs next, if there is one.
        self.time.slept(from, self.is_away);
        Returned::Nothing
    }

    /// Sleeps, and lets the halted `vcpu` sleep on this thread, until it wakes, a kick, or until `timer`, ns.
    fn sleep_in_place(&mut self, pool: &Pool, mut vcpu: LocalVcpu, timer: Option<Ns>) -> Returned {
        self.time.leave_unassigned();
        let from = sys::monotonic_ns();
        let target = pool.kick_target(self.cpu);
        let end = self.runner.sleep(&mut vcpu, timer, target);
        kick_handler::forget_missed();
        self.time.slept(from, self.is_away);
        let spent = self.time.charge();
        if vcpu.guest.has_ended() {
            pool.remove_guest(&vcpu.guest);
        }
        Returned::Slept(vcpu, end, spent)
    }
}

/// Why `vcpu`, which has halted, must not sleep in `KVM_RUN` now: interrupts of its guest wake too many
/// vCPUs at the wrong moment, so they are checked for later. `None`: it may sleep.
fn keep_awake(state: &mut PoolState, vcpu: &mut OwnedVcpu, now: Ns) -> Option<StopReason> {
    let may_sleep = state.sched.may_sleep(vcpu.id(), now);
    vcpu.set_kept_awake(may_sleep.is_err());
    may_sleep
        .err()
        .map(|check_at| StopReason::Halted(Some(check_at)))
}
