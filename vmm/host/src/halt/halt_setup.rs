//! What a thread needs so that halted vCPUs can sleep on it.

use std::io;

use baton_machine::Vcpu;
use baton_os::signals::RtSignal;

use super::exit_on_wake::{ExitOnWake, WakeExit};
use super::interrupt_sleep;
use super::runaway_guard::{RunawayGuard, RunawayTimer};
use super::wake_events::WakeEvents;

/// Signals, perf events and timers of one thread on which halted vCPUs sleep; made and used there.
pub(crate) struct HaltSetup {
    /// For a vCPU that does not stop where it should.
    runaway: RunawayTimer,
    /// `None`: debug flags make wakes exits.
    events: Option<WakeEvents>,
}

impl HaltSetup {
    /// Sets the calling thread up.
    ///
    /// # Errors
    /// If the kernel refuses a signal handler, or has no timer left.
    pub(crate) fn for_this_thread(by: ExitOnWake) -> io::Result<Self> {
        interrupt_sleep::install_signals()?;
        interrupt_sleep::unblock_signals();
        let events = match by {
            ExitOnWake::Events => WakeEvents::of_this_thread().ok(),
            ExitOnWake::Step => None,
        };
        let runaway = RunawayTimer::new(RtSignal::SleepInterrupt.number(), events.is_none())?;
        Ok(Self { runaway, events })
    }

    /// Guards against `vcpu` running on, until the guard is dropped.
    ///
    /// # Errors
    /// If the kernel does not switch the timer or event on, as it does for each that it has created. The
    /// vCPU must not sleep here then.
    pub(super) fn guard(&self, vcpu: &Vcpu) -> io::Result<RunawayGuard<'_>> {
        self.runaway.start(vcpu.overran_single_step)
    }

    /// See [`WakeExit::arm`].
    pub(super) fn arm_wake_exit(&self, vcpu: &Vcpu) -> Option<WakeExit<'_>> {
        WakeExit::arm(self.events.as_ref(), vcpu)
    }
}
