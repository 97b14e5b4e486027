//! A vCPU whose thread is in another process, in the hands of its one owner in the pool.

use std::sync::{Arc, Weak};

use baton_config::ExecutorPriority;
use baton_link::LinkError;
use baton_link::answer::Answer;
use baton_link::answer_watch::AnswerWatch;
use baton_link::command::{Command, Donated, RunCommand};
use baton_link::foreign_clock::{ForeignThreadClock, ThreadTimes};
use baton_link::join::{JoinedVcpu, VcpuKick};
use baton_link::pool_side::{PoolSide, WaitLimits};
use baton_machine::hints::HintSnapshot;
use baton_machine::inferred::LookPace;
use baton_machine::{Exit, ExitCounts};
use baton_os::sys;
use vcpu_sched::{CpuId, Decision, Hints, Ns, VcpuId};

use super::foreign_account::{SleptInRuns, Uncommanded};
use super::foreign_guest::ForeignGuest;
use super::foreign_priority::CommandPriority;
use super::interrupt_sleep::InterruptSleep;
use super::policy_ids::PolicyIds;

/// Where one vCPU of another process sleeps.
pub(crate) trait ForeignSleep: InterruptSleep {
    /// Commands the halted vCPU to sleep. It comes back by `Pool::end_sleep`.
    fn begin_sleep(&self, vcpu: Box<ForeignVcpu>);

    /// Has the calling executor wait for the vCPU, which is one of several. Afterwards the executor calls
    /// [`ForeignSleep::check_woken`]. `None`: the vCPU does not sleep.
    fn watch(&self) -> Option<AnswerWatch>;

    /// Gives the vCPU back to the pool if it has woken. False: it has not.
    fn check_woken(&self) -> bool;

    /// Ends the guest if the thread of the vCPU, which is to sleep, computes. To be called about once a second.
    fn check_asleep(&self);

    /// Gives the vCPU back to the pool, whatever its thread does. From then on it does not sleep here.
    fn close(&self);

    /// Commands the thread to stop as soon as it has answered the command to sleep. Nothing runs its vCPU any more,
    /// which has this side.
    fn stop(&self, side: PoolSide);

    /// The process is gone, so nothing of it is waited for.
    fn forget(&self);
}

/// Ends the sleep of a vCPU unless its process is gone. The policy may keep the ids of a guest a moment longer, and
/// with them this, but not the files of the process.
struct InterruptIfThere(Weak<dyn ForeignSleep>);

impl InterruptSleep for InterruptIfThere {
    fn interrupt_sleep(&self) {
        if let Some(sleep) = self.0.upgrade() {
            sleep.interrupt_sleep();
        }
    }
}

/// The ways to a vCPU of another process.
pub(super) struct VcpuWays {
    tid: i32,
    side: PoolSide,
    pub(super) kick: Arc<VcpuKick>,
    pub(super) clock: Arc<ForeignThreadClock>,
}

impl VcpuWays {
    /// Those of the vCPU `joined`, whose thread is `tid`.
    pub(super) fn new(joined: JoinedVcpu, tid: i32) -> Self {
        Self {
            tid,
            side: joined.side,
            kick: joined.kick,
            clock: Arc::new(joined.clock),
        }
    }
}

/// What the next run of a vCPU is to be shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NextRun {
    donated: Option<Donated>,
    pub(super) is_deferred: bool,
    /// Steal time since the vCPU joined, ns.
    pub(super) stolen_ns: Ns,
}

/// A vCPU of another process.
pub(crate) struct ForeignVcpu {
    id: VcpuId,
    ids: PolicyIds,
    index: u32,
    guest: Arc<ForeignGuest>,
    sleep: Arc<dyn ForeignSleep>,
    /// Its thread, as the process numbers it.
    tid: i32,
    side: PoolSide,
    kick: Arc<VcpuKick>,
    clock: Arc<ForeignThreadClock>,
    priority: CommandPriority,
    /// The host CPU that the last command to run has named.
    host_cpu: u32,
    /// The thread's times up to which all is charged.
    charged_to: ThreadTimes,
    uncommanded: Uncommanded,
    slept: SleptInRuns,
    pub(super) next: NextRun,
    /// The hints of the last answer.
    hints: HintSnapshot,
    /// The payload of the last answer, if that was a doorbell.
    payload: Option<u64>,
    /// Whether the thread has answered a command.
    has_answered: bool,
    /// Whether the thread runs the vCPU no more.
    has_stopped: bool,
    /// The CPU on which it ran last.
    pub(super) last_cpu: Option<CpuId>,
    pub(super) exits: ExitCounts,
    pub(super) look_pace: LookPace,
    pub(super) kept_awake: bool,
}

impl ForeignVcpu {
    /// The vCPU with index `index` in `guest`, which the policy calls `id`, as one of `ids`. Its thread has `priority`
    /// while it has the command to run.
    pub(super) fn new(
        (index, id): (u32, VcpuId),
        ids: PolicyIds,
        ways: VcpuWays,
        guest: Arc<ForeignGuest>,
        sleep: Arc<dyn ForeignSleep>,
        priority: ExecutorPriority,
    ) -> Self {
        Self {
            id,
            ids,
            index,
            guest,
            sleep,
            tid: ways.tid,
            side: ways.side,
            kick: ways.kick,
            charged_to: ways.clock.times().unwrap_or_default(),
            priority: CommandPriority::new(ways.tid, Arc::clone(&ways.clock), priority),
            host_cpu: 0,
            clock: ways.clock,
            uncommanded: Uncommanded::default(),
            slept: SleptInRuns::default(),
            next: NextRun::default(),
            hints: HintSnapshot::default(),
            payload: None,
            has_answered: false,
            has_stopped: false,
            last_cpu: None,
            exits: ExitCounts::default(),
            look_pace: LookPace::default(),
            kept_awake: false,
        }
    }

    /// Its id in the policy.
    pub(crate) fn id(&self) -> VcpuId {
        self.id
    }

    /// The policy's ids of its guest.
    pub(crate) fn ids(&self) -> &PolicyIds {
        &self.ids
    }

    /// Its index in the guest.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Its guest.
    pub(crate) fn guest(&self) -> &Arc<ForeignGuest> {
        &self.guest
    }

    /// Where it sleeps.
    pub(crate) fn sleep(&self) -> &Arc<dyn ForeignSleep> {
        &self.sleep
    }

    /// The way to end its sleep, which does not keep its process's files open.
    pub(crate) fn interrupt(&self) -> Arc<dyn InterruptSleep> {
        Arc::new(InterruptIfThere(Arc::downgrade(&self.sleep)))
    }

    /// The way to kick its thread.
    pub(super) fn kick(&self) -> &Arc<VcpuKick> {
        &self.kick
    }

    /// Whether its thread has answered a command.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether it must not run any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_stopped || self.guest.record().has_ended()
    }

    /// The hints of its last answer, in the policy's terms. They name vCPUs of its guest only.
    pub(crate) fn hints(&self) -> Hints {
        self.ids.hints(self.hints)
    }

    /// Whether its process infers its hints.
    pub(crate) fn is_inferred(&self) -> bool {
        self.hints.is_guess
    }

    /// The payload of the doorbell that it has rung.
    pub(crate) fn payload(&self) -> Option<u64> {
        self.payload
    }

    /// The next run is one on the scheduling context that `decision` has.
    pub(super) fn show_running(&mut self, decision: &Decision) {
        // The donor waits for this vCPU, and edges never leave a guest.
        let donor = self.ids.to_guest(decision.donor);
        let donor = donor.filter(|_| decision.is_proxied());
        self.next.donated = donor.map(|donor| Donated {
            donor,
            lock: decision.lock,
        });
        self.next.is_deferred = false;
    }

    /// Commands it to run until `until`, ns, on `host_cpu`.
    ///
    /// # Errors
    /// If its process is gone or has failed.
    pub(super) fn command_run(
        &mut self,
        until: Option<Ns>,
        host_cpu: u32,
    ) -> Result<(), LinkError> {
        let NextRun {
            donated,
            is_deferred,
            stolen_ns,
        } = self.next;
        self.host_cpu = host_cpu;
        if let Err(error) = self.priority.begin(host_cpu as usize, sys::monotonic_ns()) {
            self.guest.priority_refused(&error);
        }
        self.side.give(&Command::Run(RunCommand {
            until,
            host_cpu,
            donated,
            is_deferred,
            stolen_ns,
        }))
    }

    /// Waits for the answer to that. Meanwhile checks that the thread stays where it is told to run.
    ///
    /// # Errors
    /// If its process is gone, has broken the protocol, or is overdue, or its thread has ended.
    pub(super) fn wait(&mut self, limits: &WaitLimits) -> Result<Exit, LinkError> {
        let host_cpu = self.host_cpu as usize;
        let check = || self.priority.check(host_cpu);
        match self.side.wait_and_check(limits, sys::monotonic_ns, check) {
            Ok(answer) => Ok(self.answered(answer)),
            // The kernel takes its time to close the control socket of a process that was killed.
            Err(LinkError::Overdue { .. }) if self.guest.has_ended(self.tid) => {
                Err(LinkError::ThreadEnded)
            }
            Err(error) => Err(error),
        }
    }

    /// Its thread has answered the command to run, or is given up.
    pub(super) fn end_run(&mut self) {
        self.priority.end();
    }

    /// Commands it to sleep.
    ///
    /// # Errors
    /// As [`ForeignVcpu::command_run`].
    pub(super) fn command_sleep(&mut self) -> Result<(), LinkError> {
        self.priority.leaves_cpu();
        self.side.give(&Command::Sleep)
    }

    /// Waits for the end of its sleep.
    pub(super) fn watch(&self) -> Option<AnswerWatch> {
        self.side.watch()
    }

    /// How its sleep ended, if it has.
    ///
    /// # Errors
    /// If its process is gone or has broken the protocol.
    pub(super) fn take_woken(&mut self) -> Result<Option<Exit>, LinkError> {
        let answer = self.side.take_answer()?;
        Ok(answer.map(|answer| self.answered(answer)))
    }

    /// The exit for which `answer` stands.
    fn answered(&mut self, answer: Answer) -> Exit {
        self.has_answered = true;
        match answer {
            Answer::Preempted(hints) => {
                self.hints = hints;
                self.exits.interrupted += 1;
                Exit::Interrupted
            }
            Answer::Rang(rang) => {
                (self.hints, self.payload) = (rang.hints, rang.payload);
                self.exits.doorbells += 1;
                Exit::Doorbell(rang.doorbell)
            }
            Answer::Halted(hints) => {
                self.hints = hints;
                self.exits.halts += 1;
                Exit::Halted
            }
            // The answer to a sleep.
            Answer::Woken => Exit::Interrupted,
            Answer::Ended => {
                self.has_stopped = true;
                Exit::Ended
            }
        }
    }

    /// Takes the CPU time of its thread since the last time, ns. A thread that has ended shows none.
    pub(super) fn take_ran(&mut self) -> Ns {
        self.take_times().ran
    }

    /// Takes its thread's times since the last time.
    pub(super) fn take_times(&mut self) -> ThreadTimes {
        let Ok(now) = self.clock.times() else {
            return ThreadTimes::default();
        };
        let before = std::mem::replace(&mut self.charged_to, now);
        ThreadTimes {
            ran: now.ran.saturating_sub(before.ran),
            waited: now.waited.saturating_sub(before.waited),
        }
    }

    /// Its thread has slept for `ns` of its run up to `now`. Returns how much of that is charged, ns.
    pub(super) fn charge_slept(&mut self, ns: Ns, now: Ns) -> Ns {
        self.slept.charge(ns, now)
    }

    /// The CPU time that [`ForeignVcpu::take_ran`] would take, ns.
    pub(super) fn ran(&self) -> Ns {
        let now = self.clock.ran_ns().unwrap_or(0);
        now.saturating_sub(self.charged_to.ran)
    }

    /// Whether its thread, which has the command to run, would run if others did not keep it from its CPU.
    pub(super) fn is_kept_from_running(&self) -> bool {
        self.guest.is_ready(self.tid) && self.priority.is_as_told(self.host_cpu as usize)
    }

    /// Its thread has used `ran` ns up to `now`, for a command that was in force for `commanded` ns.
    ///
    /// # Errors
    /// If it has used too much CPU time without a command.
    pub(super) fn check_ran(&mut self, ran: Ns, commanded: Ns, now: Ns) -> Result<(), LinkError> {
        let without = ran.saturating_sub(commanded);
        match self.uncommanded.add(without, now) {
            Some(in_all) => Err(LinkError::Uncommanded(in_all)),
            None => Ok(()),
        }
    }

    /// Nothing runs it any more, and its thread is to stop.
    pub(super) fn discard(self: Box<Self>) {
        let Self { side, sleep, .. } = *self;
        sleep.stop(side);
    }
}
