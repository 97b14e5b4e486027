//! Signals that end a process unless it says otherwise, and that ask a virtual machine monitor for
//! nothing.
//!
//! The kernel sends some of them itself: `SIGXFSZ` for a write beyond the limit of a file's size
//! (`ulimit -f`), `SIGXCPU` at the soft limit of CPU time. Ignored, that write fails with `EFBIG`, as one to a
//! full disk fails, and concerns only whoever wrote. The others come from a mistaken `kill`.

use std::io;
use std::mem;
use std::ptr;

/// The signals beside the real-time ones. `SIGIO` and `SIGTRAP` get handlers where perf events send them.
/// `SIGPIPE` is ignored by Rust's runtime. What a processor or `abort` raises stays as it is: going on
/// after that would be wrong.
const STRAY: [libc::c_int; 11] = [
    libc::SIGXFSZ,
    libc::SIGXCPU,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGIO,
    libc::SIGTRAP,
];

/// Ignores them, and the real-time signals, where nobody has said otherwise. Handlers that are installed
/// later take the place of that.
pub(super) fn ignore() {
    let all = STRAY.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    for signal in all {
        if is(signal, libc::SIG_DFL) {
            // SAFETY: a valid signal, and a disposition that runs no code.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Whether `signal` has this disposition.
pub(super) fn is(signal: libc::c_int, disposition: libc::sighandler_t) -> bool {
    action(signal).is_ok_and(|action| action.sa_sigaction == disposition)
}

/// What is done when `signal` comes.
pub(super) fn action(signal: libc::c_int) -> io::Result<libc::sigaction> {
    // SAFETY: with no new action, sigaction only writes the old one.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        match libc::sigaction(signal, ptr::null(), &raw mut action) {
            0 => Ok(action),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
