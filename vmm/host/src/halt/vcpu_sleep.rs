//! The sleep of one halted vCPU, on the thread that brings it, until it wakes or another thread interrupts
//! the sleep.
//!
//! The vCPU stays halted in `KVM_RUN`, so the timer of its local APIC and interrupts from its siblings and
//! from devices all reach it there, and nothing has to emulate or watch them. `exit_on_wake.rs` describes how
//! waking becomes an exit, `sleep_slot.rs` how another thread interrupts the sleep.
//!
//! What the thread does for the vCPU, the policy has not picked: falling asleep, waking up, and under debug
//! flags the guest's one instruction. The thread's owner reports the CPU time of that
//! ([`super::CpuMeter`]). If the instruction is a device access, it has been handled when the vCPU is
//! given back.

use std::ops::ControlFlow;
use std::time::Duration;

use baton_machine::{Exit, ImmediateExit, Vcpu};
use kvm_bindings::KVM_MP_STATE_HALTED;

use super::error::HaltThreadError;
use super::exit_on_wake::WakeExit;
use super::halt_setup::HaltSetup;
use super::interrupt_sleep::{self, SleepHandle};
use super::interruption::Interruption;
use super::mp_state::is_halted;
use super::runaway_guard::RunawayGuard;
use super::sleep_slot::SleepSlot;
use super::stop_detection::run_and_detect_stop;

/// The first pause after KVM did not let a vCPU sleep that waits to be started. Each further pause is twice
/// as long.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Why the sleep of a halted vCPU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SleepEnd {
    /// The vCPU woke. If an interrupt woke it, that is delivered when the vCPU runs next, and until then
    /// KVM's state may still be halted. The guest has executed nothing ([`ExitOnWake::Events`]) or one
    /// instruction at most ([`ExitOnWake::Step`], but see `runaway_guard.rs`).
    ///
    /// [`ExitOnWake::Events`]: super::ExitOnWake::Events
    /// [`ExitOnWake::Step`]: super::ExitOnWake::Step
    Woken,
    /// Another thread interrupted the sleep ([`HaltThread::interrupt_sleep`], or the end of that thread).
    /// The vCPU may have woken at the same moment; then it does not sleep when it runs next.
    ///
    /// [`HaltThread::interrupt_sleep`]: super::HaltThread::interrupt_sleep
    Interrupted,
    /// The vCPU woke, and its first instruction caused this exit. Never [`Exit::Interrupted`] or
    /// [`Exit::Debug`]. [`Exit::Ended`] also if KVM did not let the vCPU sleep; its guest has ended then.
    Exited(Exit),
}

/// Lets one halted vCPU at a time sleep. Any thread may interrupt the sleep.
///
/// `V` is what is put into its slot for the thread, where that does not bring the vCPU by itself.
pub(crate) struct VcpuSleep<V> {
    pub(super) slot: SleepSlot<V, SleepHandle>,
}

impl<V> VcpuSleep<V> {
    /// One in which no vCPU sleeps.
    ///
    /// # Errors
    /// If the signal that interrupts a sleep cannot be installed.
    pub(crate) fn new() -> Result<Self, HaltThreadError> {
        interrupt_sleep::install_signals().map_err(HaltThreadError::Signal)?;
        Ok(Self {
            slot: SleepSlot::new(),
        })
    }

    /// Leaves a vCPU in the slot for the thread.
    ///
    /// # Errors
    /// Returns the vCPU if there is one already, or the slot is closed.
    pub(crate) fn put(&self, vcpu: V) -> Result<(), V> {
        self.slot.put(vcpu)
    }

    /// Requests the end of the sleep, and returns at once: the sleep ends as [`SleepEnd::Interrupted`] unless
    /// something else woke the vCPU first. If no vCPU sleeps, the next sleep ends at once.
    pub(crate) fn interrupt(&self) {
        self.slot.interrupt(SleepHandle::interrupt);
    }

    /// Ends the sleep, if a vCPU sleeps, and every later one at its begin.
    pub(crate) fn close(&self) {
        self.slot.close(SleepHandle::interrupt);
    }

    /// See [`sleep`].
    pub(crate) fn sleep(&self, vcpu: &mut Vcpu, setup: &HaltSetup) -> SleepEnd {
        sleep(vcpu, setup, self)
    }
}

impl<V> Interruption for VcpuSleep<V> {
    fn begin_sleep(&self, immediate_exit: ImmediateExit) -> bool {
        let handle = SleepHandle::for_this_thread(immediate_exit);
        self.slot.begin_sleep(handle)
    }

    fn is_interrupted(&self) -> bool {
        self.slot.is_interrupted()
    }

    fn pause(&self, time: Duration) {
        self.slot.pause(time);
    }

    fn end_sleep(&self) {
        self.slot.end_sleep();
    }
}

/// Lets `vcpu` sleep on this thread until it wakes or its sleep is interrupted. Afterwards no debug flags are set
/// and `immediate_exit` is cleared. (Steps 2 to 6 of the protocol in `sleep_slot.rs`.)
pub(crate) fn sleep(
    vcpu: &mut Vcpu,
    setup: &HaltSetup,
    interruption: &impl Interruption,
) -> SleepEnd {
    Sleep { interruption }.sleep(vcpu, setup)
}

/// A sleep, and how it is interrupted.
struct Sleep<'a, I> {
    interruption: &'a I,
}

impl<I: Interruption> Sleep<'_, I> {
    fn sleep(&self, vcpu: &mut Vcpu, setup: &HaltSetup) -> SleepEnd {
        vcpu.complete_pending();
        vcpu.limit_timer();
        let state = vcpu.mp_state();
        if !state.is_ok_and(is_halted) {
            // The vCPU has something to run; the policy decides when.
            self.end_sleep(vcpu);
            return SleepEnd::Woken;
        }
        let Some(wake_exit) = setup.arm_wake_exit(vcpu) else {
            self.end_sleep(vcpu);
            return SleepEnd::Exited(Exit::Ended);
        };
        let halted = state == Ok(KVM_MP_STATE_HALTED);
        let end = self.begin_sleep(vcpu, halted, setup, &wake_exit);
        self.end_sleep(vcpu);
        if wake_exit.disarm(vcpu) {
            end
        } else {
            SleepEnd::Exited(Exit::Ended)
        }
    }

    /// Steps 3 and 4. `halted`: the vCPU has executed HLT, and does not wait to be started.
    fn begin_sleep(
        &self,
        vcpu: &mut Vcpu,
        halted: bool,
        setup: &HaltSetup,
        wake_exit: &WakeExit<'_>,
    ) -> SleepEnd {
        if !self.interruption.begin_sleep(vcpu.immediate_exit()) {
            return SleepEnd::Interrupted;
        }
        match setup.guard(vcpu) {
            Ok(_) if halted && wake_exit.has_woken(vcpu) => SleepEnd::Woken,
            Ok(mut guard) => self.run(vcpu, halted, wake_exit, &mut guard),
            // Without a guard nothing would end a run here. Where the policy runs the vCPU, it halts again.
            Err(_) => SleepEnd::Interrupted,
        }
    }

    /// Step 4.
    fn run(
        &self,
        vcpu: &mut Vcpu,
        halted: bool,
        wake_exit: &WakeExit<'_>,
        guard: &mut RunawayGuard<'_>,
    ) -> SleepEnd {
        let mut pause = FIRST_PAUSE;
        loop {
            match run_and_detect_stop(vcpu) {
                Exit::Debug => return SleepEnd::Woken,
                Exit::Interrupted => {
                    let state = match self.after_signal(vcpu, halted, wake_exit) {
                        ControlFlow::Break(end) => return end,
                        ControlFlow::Continue(state) => state,
                    };
                    guard.double_slice();
                    // A guest may hold an NMI against a vCPU that it has not started. KVM then neither
                    // starts the vCPU nor lets it sleep, and that must not become a busy loop.
                    if state != KVM_MP_STATE_HALTED {
                        self.interruption.pause(pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                exit => return SleepEnd::Exited(exit),
            }
        }
    }

    /// A signal ended `KVM_RUN`: of the runaway guard, of an interruption, of a wake, or one that was meant
    /// for something else. Continues with the vCPU's run state if the sleep goes on.
    fn after_signal(
        &self,
        vcpu: &mut Vcpu,
        halted: bool,
        wake_exit: &WakeExit<'_>,
    ) -> ControlFlow<SleepEnd, u32> {
        let by_signal = wake_exit.ends_by_signal();
        match vcpu.mp_state() {
            Ok(state) if is_halted(state) => {
                if self.interruption.is_interrupted() {
                    ControlFlow::Break(SleepEnd::Interrupted)
                } else if state == KVM_MP_STATE_HALTED && by_signal {
                    ControlFlow::Break(SleepEnd::Woken)
                } else {
                    ControlFlow::Continue(state)
                }
            }
            _ => {
                // The vCPU ran on, and neither an interruption nor its single step has stopped it.
                let stopped = by_signal || self.interruption.is_interrupted();
                vcpu.overran_single_step |= halted && !stopped;
                ControlFlow::Break(SleepEnd::Woken)
            }
        }
    }

    /// Step 5, and the flag of step 6.
    fn end_sleep(&self, vcpu: &Vcpu) {
        self.interruption.end_sleep();
        vcpu.immediate_exit().set(false);
    }
}
