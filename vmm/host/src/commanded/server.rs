//! Carrying out the commands of a pool, on the vCPU's thread.

use std::io;
use std::sync::Arc;

use baton_link::LinkError;
use baton_link::answer::{Answer, Rang};
use baton_link::command::{Command, RunCommand};
use baton_link::thread_side::ThreadSide;
use baton_machine::hints::HintSnapshot;
use baton_machine::{Doorbell, Exit, Vcpu};
use baton_os::sys;
use vcpu_sched::Ns;

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
    /// The host CPUs on which the vCPU may sleep and run without a command.
    host_cpus: Vec<usize>,
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
    /// For the calling thread. Beside a command, the vCPU may use `host_cpus`.
    ///
    /// # Errors
    /// If the host has no timers or signals for it.
    pub(super) fn for_this_thread(host_cpus: Vec<usize>) -> io::Result<Self> {
        Ok(Self {
            run_loop: RunLoop::for_this_thread()?,
            halt_setup: HaltSetup::for_this_thread(ExitOnWake::Events)?,
            host_cpus,
            pins: PinChanges::default(),
            pinned: Pinned::default(),
            last_cpu: None,
            migrations: 0,
            shown: Shown::default(),
            has_wake: false,
        })
    }

    /// Obeys the pool of `seat` until it is gone, or another phase of the thread begins in `slot`.
    pub(super) fn obey(&mut self, vcpu: &mut Vcpu, mut seat: Seat, slot: &PhaseSlot) {
        self.shown.begin_pool();
        self.has_wake = true;
        loop {
            let end = match seat.side.wait() {
                Ok(command) => self.carry_out(vcpu, &command, &mut seat, slot),
                Err(error) => Err(error.into()),
            };
            match end {
                Ok(()) => {}
                Err(PoolLost::Link(LinkError::Gone)) => return,
                Err(lost) => {
                    if !vcpu.guest.has_ended() {
                        (seat.on_lost)(lost);
                    }
                    return;
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        vcpu: &mut Vcpu,
        command: &Command,
        seat: &mut Seat,
        slot: &PhaseSlot,
    ) -> Result<(), PoolLost> {
        let answer = match command {
            Command::Run(run) => self.run(vcpu, run, &seat.side, slot),
            Command::Sleep => self.sleep(vcpu, &seat.side, slot),
            Command::Stop => Answer::Ended,
        };
        let answer = match vcpu.guest.has_ended() {
            true => Answer::Ended,
            false => answer,
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
                    Answer::Preempted(hints(vcpu))
                })
            }
            Exit::Doorbell(Doorbell::Idle) if std::mem::take(&mut self.has_wake) => None,
            Exit::Doorbell(doorbell) => Some(Answer::Rang(rang(vcpu, doorbell))),
            Exit::Halted => Some(Answer::Halted(hints_of_halted(vcpu))),
            Exit::Ended => Some(Answer::Ended),
        }
    }

    fn sleep(&mut self, vcpu: &mut Vcpu, side: &ThreadSide, slot: &PhaseSlot) -> Answer {
        // Until the answer, which the pool waits for.
        let _preempts = ThreadPriority::default().preempt_for_now();
        // If an executor waits for the vCPU, nothing runs where it has halted, so it wakes there. Otherwise another vCPU
        // runs there by now, and this one may wake wherever there is room.
        if !side.is_watched() {
            self.leave_cpu();
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

    /// Lets the thread run on all host CPUs where its vCPU may run.
    pub(super) fn leave_cpu(&mut self) {
        // The kernel refuses only if this process may use none of them now. The thread stays where it is then.
        let _ = sys::set_affinity(&self.host_cpus);
        self.pinned.forget();
    }
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
    let published = &vcpu.guest.hints;
    let payload = match doorbell {
        Doorbell::Idle => {
            let tsc = published.idle_until_tsc(vcpu.index);
            (tsc != 0).then(|| vcpu.guest.clock.monotonic_at(tsc).max(1))
        }
        Doorbell::Release { .. } => published.handed_lock(vcpu.index),
        Doorbell::Wait | Doorbell::Wake { .. } => None,
    };
    Rang {
        doorbell,
        payload,
        hints: hints(vcpu),
    }
}

/// The hints that `vcpu` has published, or what is inferred.
fn hints(vcpu: &mut Vcpu) -> HintSnapshot {
    match is_inferred(vcpu) {
        true => vcpu.inferred_hints(sys::monotonic_ns()),
        false => vcpu.guest.hints.snapshot(vcpu.index),
    }
}

/// The same of a vCPU that has halted.
fn hints_of_halted(vcpu: &mut Vcpu) -> HintSnapshot {
    match is_inferred(vcpu) {
        true => vcpu.inferred_hints_of_halted(sys::monotonic_ns()),
        false => hints(vcpu),
    }
}

fn is_inferred(vcpu: &Vcpu) -> bool {
    vcpu.guest.inferred.is_on() && !vcpu.guest.hints.is_registered(vcpu.index)
}
