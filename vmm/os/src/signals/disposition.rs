//! What the process does when a signal comes.

use std::io;
use std::mem;
use std::ptr;

use vmm_sys_util::signal::register_signal_handler;

/// What the process does when a signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The kernel's default action, which for most signals ends the process.
    Default,
    /// Nothing, not even the end of a blocking system call.
    Ignore,
    /// A handler runs.
    Handler,
}

/// The disposition of `signal`.
///
/// # Errors
/// If there is no such signal.
pub fn disposition(signal: libc::c_int) -> io::Result<Disposition> {
    Ok(match action(signal)?.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignore,
        _ => Disposition::Handler,
    })
}

/// Whether `signal` is ignored.
pub(super) fn is_ignored(signal: libc::c_int) -> bool {
    disposition(signal).is_ok_and(|disposition| disposition == Disposition::Ignore)
}

/// The kernel's record of the disposition of `signal`.
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

/// Makes `signal` end a blocking system call (`EINTR`) and do nothing else.
///
/// # Errors
/// If the kernel refuses the handler.
pub fn install_empty_handler(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(signal, on_signal).map_err(Into::into)
}
