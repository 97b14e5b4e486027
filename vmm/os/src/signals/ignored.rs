//! Signals that would end the process by default, and that request nothing from a virtual machine monitor.
//!
//! The kernel sends some of them itself: `SIGXFSZ` for a write beyond the limit of a file's size
//! (`ulimit -f`), `SIGXCPU` at the soft limit of CPU time. Where `SIGXFSZ` is ignored, that write fails
//! with `EFBIG`, as a write to a full disk fails, and concerns only the writer. The others come from a
//! mistaken `kill`.

use super::disposition::{Disposition, disposition};

/// The ignored signals beside the real-time ones. `SIGIO` and `SIGTRAP` get handlers where perf events send
/// them. Rust's runtime ignores `SIGPIPE`. The signals that a processor or `abort` raises are not among
/// these: to go on after one would be wrong.
const IGNORED: [libc::c_int; 11] = [
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

/// Ignores these signals and the real-time ones, except where they have a disposition already. A handler
/// that is installed later takes the place of that.
pub(super) fn ignore() {
    let all = IGNORED
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    for signal in all {
        if disposition(signal).is_ok_and(|disposition| disposition == Disposition::Default) {
            // SAFETY: a valid signal, and a disposition that runs no code.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disposition::install_empty_handler;
    use super::*;

    #[test]
    fn a_handler_that_is_there_already_stays_and_the_last_real_time_signal_is_ignored() {
        install_empty_handler(libc::SIGPROF).expect("a handler");
        ignore();
        let of = |signal| disposition(signal).expect("a signal");
        assert_eq!(of(libc::SIGPROF), Disposition::Handler);
        assert_eq!(of(libc::SIGPWR), Disposition::Ignore);
        assert_eq!(of(libc::SIGRTMAX()), Disposition::Ignore);
    }
}
