//! Running a vCPU on the calling thread until the policy has a say: what a thread needs for it, and
//! the loop around `KVM_RUN`.

use std::io;

use baton_machine::{Exit, Vcpu};
use baton_os::sys;

use super::kick_target::Station;
use super::presence::Presence;
use super::signal::{self, Armed};
use super::timer::PreemptionTimer;
use crate::halt::{HaltSetup, HaltSignal, InPlaceEnd, SleepInPlace, is_halted};

/// A thread's equipment for running vCPUs.
pub(crate) struct Lane {
    timer: PreemptionTimer,
    /// Ends a `KVM_RUN` in which the vCPU halts. `None` where the host does not permit it.
    halt: Option<HaltSignal>,
    presence: Presence,
}

impl Lane {
    /// # Errors
    /// If the host has no timer for this thread.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        Ok(Self {
            timer: PreemptionTimer::for_this_thread()?,
            halt: HaltSignal::arm(signal::kick_signal()).ok(),
            presence: Presence::default(),
        })
    }

    /// Whether halts end `KVM_RUN`.
    pub(crate) fn sees_halts(&self) -> bool {
        self.halt.is_some()
    }

    /// A signal since the last time may have been the halt signal's one shot.
    fn watch_for_halts(&mut self) {
        if signal::take_seen()
            && let Some(halt) = &mut self.halt
            && halt.rearm().is_err()
        {
            // It worked when it was set up. Without it halts are polled.
            self.halt = None;
        }
    }

    /// Runs `vcpu` for the executor at `station` until something that the policy should hear of:
    /// a doorbell, a halt, a kick, the time `until` (ns), the guest's end. Device accesses are
    /// handled and the guest entered again. May return [`Exit::Interrupted`] without cause.
    pub(crate) fn run(&mut self, vcpu: &mut Vcpu, until: Option<u64>, station: &Station) -> Exit {
        self.timer.arm(until, sys::monotonic_ns());
        let (armed, clear) = Armed::new(vcpu.immediate_exit());
        self.watch_for_halts();
        if !clear || !station.enter_guest() {
            return Exit::Interrupted;
        }
        let exit = loop {
            self.presence.begin(sys::coarse_monotonic_ns());
            match vcpu.run() {
                Exit::Handled => {}
                Exit::Interrupted => {
                    if let Some(exit) = self.interrupted(vcpu, &armed, until, station) {
                        break exit;
                    }
                }
                exit => break exit,
            }
        };
        station.leave_guest();
        exit
    }

    /// A signal ended `KVM_RUN`: what for. `None`: nothing, go on. The host has run something else
    /// for a moment, and the context switch looked like that of a halt; no other thread needs to
    /// hear of that.
    fn interrupted(
        &mut self,
        vcpu: &mut Vcpu,
        armed: &Armed,
        until: Option<u64>,
        station: &Station,
    ) -> Option<Exit> {
        armed.again();
        if let Some(missed) = self.presence.missed(sys::coarse_monotonic_ns()) {
            vcpu.guest.hints.add_steal(vcpu.index, missed);
            vcpu.guest.steal.add(vcpu.index, missed);
            vcpu.missed(missed);
        }
        // KVM fails only for a vCPU that has no state to tell; then it is not halted.
        if vcpu.mp_state().is_ok_and(is_halted) {
            return Some(Exit::Halted);
        }
        let now = sys::monotonic_ns();
        if station.is_kicked() || until.is_some_and(|until| now >= until) {
            return Some(Exit::Interrupted);
        }
        self.timer.arm(until, now);
        self.watch_for_halts();
        None
    }

    /// Lets `vcpu`, which has halted, sleep on this thread for the executor at `station`, which has
    /// nothing else to run until `until` (ns).
    pub(crate) fn nap(
        &mut self,
        vcpu: &mut Vcpu,
        until: Option<u64>,
        station: &Station,
        setup: &HaltSetup,
    ) -> InPlaceEnd {
        let sleep = match SleepInPlace::begin(vcpu, setup) {
            Ok(sleep) => sleep,
            Err(end) => return end,
        };
        self.timer.arm(until, sys::monotonic_ns());
        let end = {
            let (_armed, clear) = Armed::new(vcpu.immediate_exit());
            if clear && station.enter_guest() {
                let end = sleep.run(vcpu);
                station.leave_guest();
                end
            } else {
                InPlaceEnd::Kicked
            }
        };
        sleep.end(vcpu);
        end
    }
}
