//! The signal that calls a vCPU back from its berth.
//!
//! A signal of its own, with a handler that does nothing: who sends it has set `immediate_exit`
//! before. The executors' kick signal has a handler that must know what its thread runs.

use std::sync::OnceLock;

use vmm_sys_util::errno::Error;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The signal's number; the executors' kick is the one below.
pub(super) fn recall_signal() -> libc::c_int {
    SIGRTMIN() + 2
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Makes the signal interrupt system calls and do nothing else, once for the process.
pub(super) fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), Error>> = OnceLock::new();
    *INSTALLED.get_or_init(|| register_signal_handler(recall_signal(), nothing))
}
