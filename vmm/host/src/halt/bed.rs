//! A bed: where one halted vCPU sleeps, on the thread that brings it.
//!
//! The vCPU stays halted in `KVM_RUN`, so the timer of its local APIC, interrupts from its siblings
//! and from devices all reach it there and nobody has to emulate or watch them. `exit_on_wake.rs` tells
//! how waking becomes an exit, `slot.rs` how the vCPU is called back.
//!
//! What runs here runs outside of the policy's turns: falling asleep, waking up, and under debug flags
//! the guest's one instruction. The thread's owner reports the CPU time that it took
//! ([`super::Spent`]). If the instruction is a device access, it has been handled when the vCPU comes
//! back.

use std::io;
use std::time::Duration;

use baton_machine::{Exit, ImmediateExit, Vcpu};
use baton_os::signals;
use baton_os::sys;
use kvm_bindings::KVM_MP_STATE_HALTED;

use super::doze;
use super::exit_on_wake::Watch;
use super::leash::{Held, Leash};
use super::recall_signal::{self, recall_signal};
use super::slot::Slot;
use super::wake_events::WakeEvents;
use super::{BerthEnd, BerthError, ExitOnWake, is_halted};

/// After KVM would not let a vCPU sleep that waits to be started, the first pause; each further one
/// is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The one who sleeps: how to end it.
pub(super) struct Sleeper {
    immediate_exit: ImmediateExit,
    tid: libc::pid_t,
}

impl Sleeper {
    /// Under the slot's lock: the thread is in or before `KVM_RUN`, and alive.
    fn wake(&self) {
        self.immediate_exit.set(true);
        signals::send(self.tid, recall_signal());
    }
}

/// Place for one halted vCPU to sleep in.
pub(crate) struct Bed {
    pub(super) slot: Slot<Box<Vcpu>, Sleeper>,
}

/// What a thread needs to let vCPUs sleep on it; made and used there.
pub(crate) struct Bedding {
    /// For a vCPU that is not stopped where it should be.
    leash: Leash,
    /// `None`: debug flags do it.
    events: Option<WakeEvents>,
}

impl Bedding {
    /// For the calling thread.
    ///
    /// # Errors
    /// If the host has no signals or no clock for it.
    pub(crate) fn of_this_thread(way: ExitOnWake) -> io::Result<Self> {
        recall_signal::install()?;
        recall_signal::unblock();
        let events = match way {
            ExitOnWake::Events => WakeEvents::of_this_thread().ok(),
            ExitOnWake::Step => None,
        };
        Ok(Self {
            leash: Leash::new(recall_signal(), events.is_none())?,
            events,
        })
    }

    /// Holds the leash of `vcpu`.
    ///
    /// # Errors
    /// If the host does not switch it on, which it does for each that it has made. The vCPU must not
    /// sleep here then.
    pub(super) fn hold(&self, vcpu: &Vcpu) -> io::Result<Held<'_>> {
        self.leash.hold(vcpu.overran_single_step)
    }

    /// See [`Watch::begin`].
    pub(super) fn watch(&self, vcpu: &Vcpu) -> Option<Watch<'_>> {
        Watch::begin(self.events.as_ref(), vcpu)
    }
}

impl Bed {
    /// An empty bed.
    ///
    /// # Errors
    /// If the recall signal cannot be installed.
    pub(crate) fn new() -> Result<Self, BerthError> {
        recall_signal::install().map_err(BerthError::Signal)?;
        Ok(Self { slot: Slot::new() })
    }

    /// Asks for the vCPU back, and returns at once: its stay ends as [`BerthEnd::Recalled`] unless
    /// something else woke it first. If there is none, the next stay ends at once.
    pub(crate) fn recall(&self) {
        self.slot.recall(Sleeper::wake);
    }

    /// Ends the stay, if there is one, and every later one at its begin.
    pub(crate) fn close(&self) {
        self.slot.close(Sleeper::wake);
    }

    /// Lets `vcpu` sleep on this thread until it wakes or is recalled. Afterwards no debug flags are
    /// set and `immediate_exit` is cleared. (Steps 2 to 6 of the protocol in `slot.rs`.)
    pub(crate) fn stay(&self, vcpu: &mut Vcpu, bedding: &Bedding) -> BerthEnd {
        vcpu.complete_pending();
        vcpu.limit_timer();
        let state = vcpu.mp_state();
        let halted = state == Ok(KVM_MP_STATE_HALTED);
        let (watch, end) = if !state.is_ok_and(is_halted) {
            // Whatever it has to run, the policy decides when.
            (None, BerthEnd::Woken)
        } else if let Some(watch) = bedding.watch(vcpu) {
            let end = self.enter(vcpu, halted, bedding, &watch);
            (Some(watch), end)
        } else {
            (None, BerthEnd::Exited(Exit::Ended))
        };
        self.slot.leave();
        vcpu.immediate_exit().set(false);
        if watch.is_none_or(|watch| watch.end(vcpu)) {
            end
        } else {
            BerthEnd::Exited(Exit::Ended)
        }
    }

    /// Steps 3 and 4.
    fn enter(&self, vcpu: &mut Vcpu, halted: bool, bedding: &Bedding, watch: &Watch) -> BerthEnd {
        let entered = self.slot.enter(Sleeper {
            immediate_exit: vcpu.immediate_exit(),
            tid: sys::thread_id(),
        });
        if !entered {
            return BerthEnd::Recalled;
        }
        match bedding.hold(vcpu) {
            Ok(_) if halted && watch.is_over(vcpu) => BerthEnd::Woken,
            Ok(mut held) => self.sleep(vcpu, halted, watch, &mut held),
            // It could run on without an end here. Where the policy runs it, it halts again.
            Err(_) => BerthEnd::Recalled,
        }
    }

    /// Step 4.
    fn sleep(&self, vcpu: &mut Vcpu, halted: bool, watch: &Watch, leash: &mut Held) -> BerthEnd {
        let mut pause = FIRST_PAUSE;
        loop {
            match doze::run(vcpu) {
                Exit::Debug => return BerthEnd::Woken,
                // The leash or a recall, or a signal for somebody else, and perhaps a wake too.
                Exit::Interrupted => match vcpu.mp_state() {
                    Ok(state) if is_halted(state) => {
                        if self.slot.is_recalled() {
                            return BerthEnd::Recalled;
                        }
                        if state == KVM_MP_STATE_HALTED && watch.tells_by_signal() {
                            return BerthEnd::Woken;
                        }
                        leash.lengthen();
                        // A guest may hold an NMI against a vCPU that it has not started. KVM then
                        // neither starts it nor sleeps, and that must not become a loop.
                        if state != KVM_MP_STATE_HALTED {
                            self.slot.pause(pause);
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                    _ => {
                        // Nobody called it, and it did not stop by itself.
                        vcpu.overran_single_step |=
                            halted && !watch.tells_by_signal() && !self.slot.is_recalled();
                        return BerthEnd::Woken;
                    }
                },
                exit => return BerthEnd::Exited(exit),
            }
        }
    }
}
