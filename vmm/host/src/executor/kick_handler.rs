//! The kick signal and its handler: the signal ends a `KVM_RUN` of the thread that it reaches, or keeps it from starting.
//!
//! Kicks, the preemption timer and the halt signal all send it. The handler sets
//! `kvm_run.immediate_exit` of the vCPU that the thread runs or is about to run.

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
    /// A signal came while this thread ran no vCPU.
    static MISSED: Cell<bool> = const { Cell::new(false) };
    /// A signal came.
    static SEEN: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SEEN.set(true);
    let current = CURRENT.get();
    if current.is_null() {
        MISSED.set(true);
    } else {
        // SAFETY: `KickGuard` keeps the run page mapped while its address stands in CURRENT.
        unsafe { &*current }.store(1, Ordering::Relaxed);
    }
}

/// Installs the handler, once for the process.
///
/// # Errors
/// If the kernel refuses it.
pub(crate) fn install() -> Result<(), vmm_sys_util::errno::Error> {
    static INSTALLED: OnceLock<Result<(), vmm_sys_util::errno::Error>> = OnceLock::new();
    *INSTALLED.get_or_init(|| register_signal_handler(RtSignal::ExecutorKick.number(), on_kick))
}

/// While it lives, kick signals to this thread end the `KVM_RUN` of one vCPU.
pub(crate) struct KickGuard {
    immediate_exit: ImmediateExit,
}

impl KickGuard {
    /// Directs kick signals to this thread at the vCPU of `immediate_exit`. The flag is false if a signal
    /// arrived before, since this thread ran a vCPU last; the caller must not enter the guest then.
    pub(crate) fn arm(immediate_exit: ImmediateExit) -> (Self, bool) {
        CURRENT.set(immediate_exit.as_ptr());
        // The handler runs on this thread, so program order is enough.
        compiler_fence(Ordering::SeqCst);
        (Self { immediate_exit }, !MISSED.replace(false))
    }

    /// A signal has ended the run. From here on only later signals count.
    pub(crate) fn rearm(&self) {
        self.immediate_exit.set(false);
        compiler_fence(Ordering::SeqCst);
    }
}

impl Drop for KickGuard {
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

/// Sends the kick signal to thread `tid` of this process. It is no error if the thread has ended: it runs
/// no vCPU then.
pub(crate) fn send(tid: libc::pid_t) {
    signals::send(tid, RtSignal::ExecutorKick.number());
}
