//! Carrying out the commands of a pool, on the vCPU's thread.

use std::io;
use std::sync::Arc;

use baton_link::LinkError;
use baton_link::answer::{Answer, Rang};
use baton_link::command::{Command, RunCommand};
use baton_link::thread_side::ThreadSide;
use baton_machine::hints::HintSnapshot;
use baton_machine::{Doorbell, Exit, Vcpu};
use baton_os::signals::{self, RtSignal};
use baton_os::sys::{self, SchedPolicy};
use vcpu_sched::Ns;

use super::current_vcpu::CurrentVcpu;
use super::idle_cpus::IdleCpus;
use super::kicks::{CommandKicks, CommandedSleep};
use super::phase::{PhaseSlot, PoolLost, Seat};
use super::shown::Shown;
use crate::executor::exits::HALT_POLL_NS;
use crate::executor::kick_handler::{self, KickGuard};
use crate::executor::kicks::Kicks;
use crate::executor::pins::{PinChanges, Pinned};
use crate::executor::run_loop::RunLoop;
use crate::halt::{self, ExitOnWake, HaltSetup, SleepEnd, ThreadPriority};

/// No host of Linux has more CPUs than this on x86. A pool that names another one is not obeyed in that.
const MAX_HOST_CPUS: usize = 8192;

/// What a thread needs to carry out commands.
pub(super) struct Server {
    run_loop: RunLoop,
    halt_setup: HaltSetup,
    idle_cpus: IdleCpus,
    pins: PinChanges,
    pinned: Pinned,
    /// The host CPU of the last run.
    last_cpu: Option<usize>,
    /// How often the host CPU was another one than that of the run before.
    pub(super) migrations: u64,
    pub(super) shown: Shown,
    /// Whether the next idle doorbell is answered at once. A wake that was rung before the pool changed may have
    /// been meant for it, and has been lost.
    has_wake: bool,
}

impl Server {
    /// For the calling thread, which has `idle_cpus` while it does not run the vCPU by command.
    ///
    /// # Errors
    /// If the host has no timers or signals for it.
    pub(super) fn for_this_thread(idle_cpus: IdleCpus) -> io::Result<Self> {
        Ok(Self {
            run_loop: RunLoop::for_this_thread()?,
            halt_setup: HaltSetup::for_this_thread(ExitOnWake::Events)?,
            idle_cpus,
            pins: PinChanges::default(),
            pinned: Pinned::default(),
            last_cpu: None,
            migrations: 0,
            shown: Shown::default(),
            has_wake: false,
        })
    }

    /// Whether halts of the vCPU are noticed at once.
    pub(super) fn detects_halts(&self) -> bool {
        self.run_loop.detects_halts()
    }

    /// Obeys the pool of `seat` until it is gone, or another phase of the thread begins in `slot`.
    pub(super) fn obey(&mut self, current: &mut CurrentVcpu, mut seat: Seat, slot: &PhaseSlot) {
        self.shown.begin_pool();
        self.has_wake = true;
        loop {
            let end = match seat.side.wait() {
                Ok(command) => self.carry_out(current, &command, &mut seat, slot),
                Err(error) => Err(error.into()),
            };
            match end {
                Ok(()) => {}
                Err(PoolLost::Link(LinkError::Gone)) => return,
                Err(lost) => {
                    if !slot.is_closed() {
                        (seat.on_lost)(lost);
                    }
                    return;
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        current: &mut CurrentVcpu,
        command: &Command,
        seat: &mut Seat,
        slot: &PhaseSlot,
    ) -> Result<(), PoolLost> {
        let answer = match (command, current.ready(slot)) {
            (Command::Run(run), Some(vcpu)) => self.run(vcpu, run, &seat.side, slot),
            (Command::Sleep, Some(vcpu)) => self.sleep(vcpu, &seat.side, slot),
            (Command::Sleep, None) => {
                wait_for_vcpu(&seat.side, slot);
                Answer::Woken
            }
            (Command::Run(_), None) | (Command::Stop, _) => Answer::Ended,
        };
        // Also released if the guest has ended meanwhile.
        let answer = match (current.release_ended(), command) {
            (false, _) => answer,
            (true, _) if slot.is_closed() => Answer::Ended,
            (true, Command::Stop) => Answer::Ended,
            (true, Command::Run(_)) => {
                self.shown.begin_vcpu();
                Answer::Halted(HintSnapshot::default())
            }
            (true, Command::Sleep) => Answer::Woken,
        };
        seat.side.answer(&answer)?;
        match command {
            Command::Run(_) => Ok(()),
            Command::Sleep => {
                if !seat.side.was_watched() {
                    seat.wakes.report();
                }
                Ok(())
            }
            Command::Stop => Err(PoolLost::Stopped),
        }
    }

    fn run(
        &mut self,
        vcpu: &mut Vcpu,
        run: &RunCommand,
        side: &ThreadSide,
        slot: &PhaseSlot,
    ) -> Answer {
        self.go_to(run.host_cpu as usize);
        self.shown.begin_run(vcpu, run);
        let began = sys::monotonic_ns();
        // The kicks that matter are recorded.
        kick_handler::forget_missed();
        let answer = loop {
            let guest = &*Arc::clone(&vcpu.guest);
            let kicks = CommandKicks { side, slot, guest };
            let exit = self.run_loop.run(vcpu, self.next_exit(run.until), &kicks);
            if let Some(answer) = self.answer(vcpu, exit, run.until, &kicks) {
                break answer;
            }
        };
        record_run(vcpu, &answer, sys::monotonic_ns().saturating_sub(began));
        self.shown.end_run(vcpu, &answer);
        answer
    }

    /// When the vCPU has to leave the guest at the latest, ns.
    fn next_exit(&self, until: Option<Ns>) -> Option<Ns> {
        let detects_halts = self.run_loop.detects_halts();
        let poll = (!detects_halts).then(|| sys::monotonic_ns().saturating_add(HALT_POLL_NS));
        [until, poll].into_iter().flatten().min()
    }

    /// The answer to `exit`. `None`: the run goes on.
    fn answer(
        &mut self,
        vcpu: &mut Vcpu,
        exit: Exit,
        until: Option<Ns>,
        kicks: &impl Kicks,
    ) -> Option<Answer> {
        match exit {
            Exit::Handled | Exit::Debug => None,
            Exit::Interrupted => {
                let is_over = until.is_some_and(|until| sys::monotonic_ns() >= until);
                (is_over || kicks.is_kicked()).then(|| {
                    vcpu.limit_timer();
                    Answer::Preempted(vcpu.hints(sys::monotonic_ns()))
                })
            }
            Exit::Doorbell(Doorbell::Idle) if std::mem::take(&mut self.has_wake) => None,
            Exit::Doorbell(doorbell) => Some(Answer::Rang(rang(vcpu, doorbell))),
            Exit::Halted => Some(Answer::Halted(vcpu.hints_of_halted(sys::monotonic_ns()))),
            Exit::Ended => Some(Answer::Ended),
        }
    }

    fn sleep(&mut self, vcpu: &mut Vcpu, side: &ThreadSide, slot: &PhaseSlot) -> Answer {
        // Until the answer, which the pool waits for.
        let _preempts = ThreadPriority::default().preempt_for_now();
        // If an executor waits for the vCPU, nothing runs where it has halted, so it wakes there. Otherwise another vCPU
        // runs there by now, and this one may wake wherever there is room.
        if !side.is_watched() || self.idle_cpus.has_priority() {
            self.leave_cpu(&self.idle_cpus.asleep());
        }
        let guest = &*Arc::clone(&vcpu.guest);
        let (guard, _) = KickGuard::arm(vcpu.immediate_exit());
        let sleep = CommandedSleep {
            kicks: CommandKicks { side, slot, guest },
            guard: &guard,
        };
        if let SleepEnd::Exited(exit) = halt::sleep(vcpu, &self.halt_setup, &sleep) {
            // The vCPU's next run gives the answer that its one instruction needs.
            vcpu.put_off(exit);
        }
        Answer::Woken
    }

    /// Pins the thread to `host_cpu`.
    fn go_to(&mut self, host_cpu: usize) {
        if self.last_cpu == Some(host_cpu) && sys::current_cpu() != host_cpu {
            self.pins.lost();
        }
        if host_cpu < MAX_HOST_CPUS {
            self.pinned.go_to(host_cpu, &self.pins);
        }
        if self.last_cpu.replace(host_cpu) != Some(host_cpu) {
            self.migrations += 1;
        }
    }

    /// The thread runs its vCPU by itself from now on, as an ordinary one, wherever the vCPU may run.
    pub(super) fn leave_pool(&mut self) {
        // A pool that is gone cannot take back the priority that a command came with. One that the user has chosen
        // is without the flag.
        if let Ok(SchedPolicy::Fifo {
            reset_on_fork: true,
            ..
        }) = sys::policy_of(0)
        {
            let _ = sys::end_fifo_policy_of(0);
        }
        let host_cpus = self.idle_cpus.alone().to_vec();
        self.leave_cpu(&host_cpus);
    }

    /// Lets the thread run on all of `host_cpus`.
    fn leave_cpu(&mut self, host_cpus: &[usize]) {
        // The kernel refuses only if this process may use none of them now. The thread stays where it is then.
        let _ = sys::set_affinity(host_cpus);
        self.pinned.forget();
    }
}

/// The thread has no vCPU, because its guest starts again: sleeps until there is one, or until a kick or the next phase
/// of the thread.
fn wait_for_vcpu(side: &ThreadSide, slot: &PhaseSlot) {
    let signals = [RtSignal::ExecutorKick.number()];
    let is_over = || side.is_kicked() || slot.has_next() || slot.has_vcpu() || slot.is_closed();
    // Whatever ends the wait is recorded before the signal is sent, which stays pending while it is blocked.
    let Ok(before) = signals::block(&signals) else {
        return;
    };
    while !is_over() && signals::wait_for(&signals).is_ok() {}
    before.restore();
}

/// Records for the guest's watchdogs that `vcpu` has run for `ran` ns.
fn record_run(vcpu: &mut Vcpu, answer: &Answer, ran: Ns) {
    match answer {
        Answer::Halted(_) => vcpu.gaps.sleeps(),
        Answer::Rang(Rang {
            doorbell: Doorbell::Idle,
            payload,
            ..
        }) => vcpu.gaps.idles(*payload),
        _ => vcpu.gaps.ran(ran),
    }
}

/// The doorbell that `vcpu` has rung, and what the guest has published with it.
fn rang(vcpu: &mut Vcpu, doorbell: Doorbell) -> Rang {
    let payload = match doorbell {
        // Zero is no time.
        Doorbell::Idle => vcpu.idle_until().map(|until| until.max(1)),
        Doorbell::Release { .. } => vcpu.handed_lock(),
        Doorbell::Wait | Doorbell::Wake { .. } => None,
    };
    Rang {
        doorbell,
        payload,
        hints: vcpu.hints(sys::monotonic_ns()),
    }
}
