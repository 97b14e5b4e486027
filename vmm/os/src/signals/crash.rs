//! The signals that end the process at once: SIGQUIT, `abort`, a fault of this program. The terminal gets its
//! modes back first; then the signal does what it would have done.

use std::ptr;
use std::sync::OnceLock;

use super::disposition::action;
use crate::tty;

const CRASHES: [libc::c_int; 7] = [
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSYS,
];

/// The actions before: Rust's runtime has handlers that report a stack overflow.
static BEFORE: OnceLock<Vec<(libc::c_int, libc::sigaction)>> = OnceLock::new();

/// Installs the handler, except for signals that the user has ignored.
pub(super) fn install() {
    let before = BEFORE.get_or_init(|| {
        let actions = CRASHES.map(|signal| Some((signal, action(signal).ok()?)));
        let known = actions.into_iter().flatten();
        known
            .filter(|(_, action)| action.sa_sigaction != libc::SIG_IGN)
            .collect()
    });
    for (signal, before) in before {
        let mut action = *before;
        action.sa_sigaction = on_crash as *const () as usize;
        // On the alternate stack, which each of Rust's threads has: the usual one may be full.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both sets are writable or initialized; the handler makes only calls that a signal
        // handler may make.
        unsafe {
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(*signal, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn on_crash(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    tty::give_back_in_a_handler();
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid one.
    if signal == libc::SIGQUIT || unsafe { (*info).si_code } <= 0 {
        // A process sent it. SAFETY: a disposition without code, and a signal to this thread, which takes
        // it when the handler has returned.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    // A fault comes again by itself, with all that a core dump should have.
    for (of, action) in BEFORE.get().map_or(&[][..], Vec::as_slice) {
        if *of == signal {
            // SAFETY: an action that the kernel gave.
            unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
        }
    }
}
