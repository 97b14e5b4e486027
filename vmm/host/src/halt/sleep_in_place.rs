//! Sleep in place: a halted vCPU sleeps on the thread of the executor that ran it and that has nothing else
//! to run.
//!
//! As on a halt thread (`vcpu_sleep.rs`), waking is an exit. But the vCPU is not handed over: the executor's
//! kick ends the sleep as it ends a run, and a vCPU that wakes is already where it will run.

use baton_machine::{Exit, Vcpu};
use kvm_bindings::KVM_MP_STATE_HALTED;

use super::exit_on_wake::WakeExit;
use super::halt_setup::HaltSetup;
use super::mp_state::is_halted;
use super::runaway_guard::RunawayGuard;
use super::stop_detection::run_and_detect_stop;

/// Why a sleep in place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum InPlaceEnd {
    /// The vCPU woke, or never slept; the policy has to decide about it. If its one instruction needed an
    /// answer, the vCPU's next run returns that exit.
    Woken,
    /// A kick or the executor's timer ended the sleep. The vCPU is still halted.
    Kicked,
    /// The vCPU waits to be started, and KVM does not always let it sleep then: it has to go to its halt
    /// thread.
    NeedsHaltThread,
}

/// A sleep that has been prepared.
#[must_use]
pub(crate) struct SleepInPlace<'a> {
    setup: &'a HaltSetup,
    wake_exit: WakeExit<'a>,
}

impl<'a> SleepInPlace<'a> {
    /// Prepares `vcpu` for [`SleepInPlace::run`]. [`SleepInPlace::end`] has to follow.
    ///
    /// # Errors
    /// Why the vCPU does not sleep. Nothing has to follow then.
    pub(crate) fn begin(vcpu: &mut Vcpu, setup: &'a HaltSetup) -> Result<Self, InPlaceEnd> {
        vcpu.complete_pending();
        vcpu.limit_timer();
        match vcpu.mp_state() {
            Ok(KVM_MP_STATE_HALTED) => {}
            Ok(state) if is_halted(state) => return Err(InPlaceEnd::NeedsHaltThread),
            _ => return Err(InPlaceEnd::Woken),
        }
        match setup.arm_wake_exit(vcpu) {
            Some(wake_exit) => Ok(Self { setup, wake_exit }),
            None => Err(InPlaceEnd::Woken),
        }
    }

    /// Sleeps until the vCPU wakes or `immediate_exit` is set.
    pub(crate) fn run(&self, vcpu: &mut Vcpu) -> InPlaceEnd {
        let Ok(mut guard) = self.setup.guard(vcpu) else {
            // Without a guard nothing would end a run here. Where the policy runs the vCPU, it halts again.
            return InPlaceEnd::Woken;
        };
        if self.wake_exit.has_woken(vcpu) {
            return InPlaceEnd::Woken;
        }
        loop {
            match run_and_detect_stop(vcpu) {
                Exit::Debug => return InPlaceEnd::Woken,
                Exit::Interrupted => {
                    if let Some(end) = self.after_signal(vcpu, &mut guard) {
                        return end;
                    }
                }
                exit => {
                    vcpu.put_off(exit);
                    return InPlaceEnd::Woken;
                }
            }
        }
    }

    /// A signal ended `KVM_RUN`. `None`: the sleep goes on.
    fn after_signal(&self, vcpu: &mut Vcpu, guard: &mut RunawayGuard<'_>) -> Option<InPlaceEnd> {
        let by_signal = self.wake_exit.ends_by_signal();
        let state = vcpu.mp_state();
        // Every kick sets the flag.
        let kicked = vcpu.immediate_exit().is_set();
        match state {
            Ok(KVM_MP_STATE_HALTED) if kicked => Some(InPlaceEnd::Kicked),
            Ok(KVM_MP_STATE_HALTED) if by_signal => Some(InPlaceEnd::Woken),
            Ok(KVM_MP_STATE_HALTED) => {
                // The runaway guard's signal came.
                guard.double_slice();
                None
            }
            Ok(state) if is_halted(state) => Some(InPlaceEnd::NeedsHaltThread),
            _ => {
                // The vCPU ran on, and neither a kick nor its single step has stopped it.
                vcpu.overran_single_step |= !by_signal && !kicked;
                Some(InPlaceEnd::Woken)
            }
        }
    }

    /// Lets the vCPU run as usual again. If KVM refuses, the guest has ended, which the next run reports.
    pub(crate) fn end(self, vcpu: &Vcpu) {
        self.wake_exit.disarm(vcpu);
    }
}
