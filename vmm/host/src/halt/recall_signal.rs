//! The signals that end a vCPU's sleep: one that calls it back, and one that tells that it wakes.
//!
//! Signals of their own, with a handler that does nothing: who calls a vCPU back has set
//! `immediate_exit` before. The executors' kick signal has a handler that must know what its thread
//! runs.

use std::sync::OnceLock;

use baton_os::rt_signals;
use vmm_sys_util::errno::Error;
use vmm_sys_util::signal::{register_signal_handler, unblock_signal};

/// The signal's number.
pub(super) fn recall_signal() -> libc::c_int {
    rt_signals::end_sleep()
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signals.
fn signals() -> [libc::c_int; 2] {
    [recall_signal(), libc::SIGTRAP]
}

/// Makes the signals interrupt system calls and do nothing else, once for the process. `SIGTRAP` is that
/// of wakes (`wake_events.rs`).
pub(super) fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), Error>> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        signals()
            .into_iter()
            .try_for_each(|signal| register_signal_handler(signal, nothing))
    })
}

/// Lets the signals through to the calling thread, whose creator may have had them blocked.
pub(super) fn unblock() {
    for signal in signals() {
        // The numbers are valid ones.
        let _ = unblock_signal(signal);
    }
}
