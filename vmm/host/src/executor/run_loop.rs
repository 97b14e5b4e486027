//! The loop around `KVM_RUN`: runs a vCPU on the calling thread until the policy has to decide.

use std::io;

use baton_machine::{Exit, Vcpu};
use baton_os::signals::RtSignal;
use baton_os::sys;

use super::kick_handler::{self, KickGuard};
use super::kicks::Kicks;
use super::presence::Presence;
use super::timer::PreemptionTimer;
use crate::halt::{HaltSetup, HaltSignal, InPlaceEnd, SleepInPlace, is_halted};

/// What a thread needs to run vCPUs.
pub(crate) struct RunLoop {
    timer: PreemptionTimer,
    /// Ends a `KVM_RUN` in which the vCPU halts. `None` where the host does not permit it.
    halt: Option<HaltSignal>,
    presence: Presence,
}

impl RunLoop {
    /// For the calling thread, which has to use it.
    ///
    /// # Errors
    /// If the host has no timer for this thread.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        Ok(Self {
            timer: PreemptionTimer::for_this_thread()?,
            halt: HaltSignal::arm(RtSignal::ExecutorKick.number()).ok(),
            presence: Presence::default(),
        })
    }

    /// Whether halts end `KVM_RUN`.
    pub(crate) fn detects_halts(&self) -> bool {
        self.halt.is_some()
    }

    /// Arms the halt signal again, if a signal since the last time may have been its one shot.
    fn rearm_halt_signal(&mut self) {
        if kick_handler::take_seen()
            && let Some(halt) = &mut self.halt
            && halt.rearm().is_err()
        {
            // It worked when it was set up. Without it halts are polled.
            self.halt = None;
        }
    }

    /// Runs `vcpu` for the one whom `target` kicks until the policy has to decide: on a doorbell, a halt, a
    /// kick, at the time `until` (ns), or at the guest's end. Device accesses are handled and the guest
    /// is entered again. May return [`Exit::Interrupted`] without cause.
    pub(crate) fn run(&mut self, vcpu: &mut Vcpu, until: Option<u64>, target: &impl Kicks) -> Exit {
        self.timer.arm(until, sys::monotonic_ns());
        let (guard, may_enter) = KickGuard::arm(vcpu.immediate_exit());
        self.rearm_halt_signal();
        if !may_enter || !target.enter_guest() {
            return Exit::Interrupted;
        }
        let exit = loop {
            self.presence.begin(sys::coarse_monotonic_ns());
            match vcpu.run() {
                Exit::Handled => {}
                Exit::Interrupted => {
                    if let Some(exit) = self.interrupted(vcpu, &guard, until, target) {
                        break exit;
                    }
                }
                exit => break exit,
            }
        };
        target.leave_guest();
        exit
    }

    /// A signal has ended `KVM_RUN`: returns the exit that it stands for. `None`: go on, because the host
    /// ran something else for a moment, and the context switch looked like that of a halt.
    fn interrupted(
        &mut self,
        vcpu: &mut Vcpu,
        guard: &KickGuard,
        until: Option<u64>,
        target: &impl Kicks,
    ) -> Option<Exit> {
        guard.rearm();
        if let Some(missed) = self.presence.missed(sys::coarse_monotonic_ns()) {
            vcpu.guest.hints.add_steal(vcpu.index, missed);
            vcpu.guest.steal.add(vcpu.index, missed);
            vcpu.steal_shown_in_run += missed;
            vcpu.missed(missed);
        }
        // KVM refuses only for a vCPU without a run state, which is not halted.
        if vcpu.mp_state().is_ok_and(is_halted) {
            return Some(Exit::Halted);
        }
        let now = sys::monotonic_ns();
        if target.is_kicked() || until.is_some_and(|until| now >= until) {
            return Some(Exit::Interrupted);
        }
        self.timer.arm(until, now);
        self.rearm_halt_signal();
        None
    }

    /// Lets `vcpu`, which has halted, sleep on this thread for the executor at `target`, which has nothing
    /// else to run until `until` (ns).
    pub(crate) fn sleep(
        &mut self,
        vcpu: &mut Vcpu,
        until: Option<u64>,
        target: &impl Kicks,
        setup: &HaltSetup,
    ) -> InPlaceEnd {
        let sleep = match SleepInPlace::begin(vcpu, setup) {
            Ok(sleep) => sleep,
            Err(end) => return end,
        };
        self.timer.arm(until, sys::monotonic_ns());
        let end = {
            let (_guard, may_enter) = KickGuard::arm(vcpu.immediate_exit());
            if may_enter && target.enter_guest() {
                let end = sleep.run(vcpu);
                target.leave_guest();
                end
            } else {
                InPlaceEnd::Kicked
            }
        };
        sleep.end(vcpu);
        end
    }
}
