//! Interrupting the sleep of a halted vCPU: with the flag `immediate_exit` and a signal.
//!
//! The flag ends a `KVM_RUN` that is about to begin, the signal one that sleeps. The signal's handler is
//! empty, because the interrupting thread has set the flag before; the handler of the executors' kick
//! relies on what its thread runs.

use std::io;

use baton_machine::ImmediateExit;
use baton_os::signals::{self, RtSignal, WAKE_TRAP};
use baton_os::sys;

/// A vCPU that sleeps on some thread: how another thread interrupts the sleep.
pub(super) struct SleepHandle {
    immediate_exit: ImmediateExit,
    tid: libc::pid_t,
}

impl SleepHandle {
    /// For the calling thread, which is about to enter `KVM_RUN` with the vCPU of `immediate_exit`.
    pub(super) fn for_this_thread(immediate_exit: ImmediateExit) -> Self {
        Self {
            immediate_exit,
            tid: sys::thread_id(),
        }
    }

    /// To be called under the slot's lock: the thread is in or before `KVM_RUN`, and alive.
    pub(super) fn interrupt(&self) {
        self.immediate_exit.set(true);
        signals::send(self.tid, RtSignal::SleepInterrupt.number());
    }
}

/// The signals that end a sleep: an interruption, and a wake (`wake_events.rs`).
fn signals() -> [libc::c_int; 2] {
    [RtSignal::SleepInterrupt.number(), WAKE_TRAP]
}

/// Makes the signals end system calls and do nothing else.
///
/// # Errors
/// If the kernel refuses a handler.
pub(super) fn install_signals() -> io::Result<()> {
    signals()
        .into_iter()
        .try_for_each(signals::install_empty_handler)
}

/// Lets the signals through to the calling thread, whose creator may have blocked them.
pub(super) fn unblock_signals() {
    // The numbers are valid ones.
    let _ = signals::unblock(&signals());
}
