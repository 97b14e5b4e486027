//! The kick signal: ends a `KVM_RUN` of the thread that it reaches, or keeps it from starting.
//!
//! Kicks, the preemption timer and the halt signal all send it. The handler sets
//! `kvm_run.immediate_exit` of the vCPU that the thread is about to run or runs.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

use baton_machine::ImmediateExit;
use baton_os::signals::{self, RtSignal};
use vmm_sys_util::signal::register_signal_handler;

thread_local! {
    // No destructors and constant initial values: a signal handler may use them at any time.
    /// `immediate_exit` of the vCPU that this thread runs.
    static CURRENT: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
    /// A signal came while there was none.
    static MISSED: Cell<bool> = const { Cell::new(false) };
    /// A signal came, whatever for.
    static SEEN: Cell<bool> = const { Cell::new(false) };
}

/// The signal's number.
pub(crate) fn kick_signal() -> libc::c_int {
    RtSignal::ExecutorKick.number()
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.set(true);
    let current = CURRENT.get();
    if current.is_null() {
        MISSED.set(true);
    } else {
        // SAFETY: `Armed` keeps the run page mapped while its address stands in CURRENT.
        unsafe { &*current }.store(1, Ordering::Relaxed);
    }
}

/// Installs the handler, once for the process.
///
/// # Errors
/// If the kernel refuses it.
pub(crate) fn install() -> Result<(), vmm_sys_util::errno::Error> {
    static INSTALLED: OnceLock<Result<(), vmm_sys_util::errno::Error>> = OnceLock::new();
    *INSTALLED.get_or_init(|| register_signal_handler(kick_signal(), on_kick))
}

/// While it lives, kick signals to this thread end the `KVM_RUN` of one vCPU.
pub(crate) struct Armed {
    immediate_exit: ImmediateExit,
}

impl Armed {
    /// From here on signals count. False beside it: one came since the last time, so do not run.
    pub(crate) fn new(immediate_exit: ImmediateExit) -> (Self, bool) {
        CURRENT.set(immediate_exit.as_ptr());
        // The handler runs on this thread: it needs program order, not a barrier.
        compiler_fence(Ordering::SeqCst);
        (Self { immediate_exit }, !MISSED.replace(false))
    }

    /// A signal ended the run; only those from here on count.
    pub(crate) fn again(&self) {
        self.immediate_exit.set(false);
        compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        compiler_fence(Ordering::SeqCst);
        self.immediate_exit.set(false);
    }
}

/// Forgets signals that came while this thread ran no vCPU.
pub(crate) fn forget_missed() {
    MISSED.set(false);
}

/// Whether a signal has come since the last call.
pub(crate) fn take_seen() -> bool {
    SEEN.replace(false)
}

/// Sends the kick signal to thread `tid` of this process. A thread that has gone is no error: it
/// runs nothing.
pub(crate) fn send(tid: libc::pid_t) {
    signals::send(tid, kick_signal());
}
