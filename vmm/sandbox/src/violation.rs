//! The end of a process that makes a system call which is not permitted: it says which one, and dies of `SIGSYS`.

use std::ffi::c_int;
use std::io;
use std::mem;

use libc::{SA_NODEFER, SA_RESETHAND, SA_SIGINFO, SIGSYS, c_void, siginfo_t};
use syscalls::Sysno;

use crate::error::SandboxError;

/// The system call is here in `siginfo_t` (`si_syscall`): after three numbers, an alignment and an address.
const SYSCALL_OFFSET: usize = 24;

/// Installs the handler of `SIGSYS`.
pub(crate) fn report() -> Result<(), SandboxError> {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = end as *const () as usize;
    // The signal that the handler sends itself ends the process.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESETHAND;
    // SAFETY: the handler has the type that SA_SIGINFO requires and makes only calls that signal handlers may make.
    match unsafe { libc::sigaction(SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(SandboxError::step("SIGSYS")(io::Error::last_os_error())),
    }
}

extern "C" fn end(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: for SIGSYS of a filter, the kernel has filled in the number of the system call, a c_int.
    let number = unsafe { info.byte_add(SYSCALL_OFFSET).cast::<c_int>().read() };
    let name = usize::try_from(number).ok().and_then(Sysno::new);
    let name = name.map_or("of an unknown name", |call| call.name());
    for part in [
        "baton: the process of this guest made the system call ",
        name,
        ", which its sandbox does not permit, and ends; if no guest attacks, that is a fault of Baton\n",
    ] {
        // SAFETY: the text is valid for reads of its length.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: raise has no requirements, and a handler may call it.
    unsafe { libc::raise(SIGSYS) };
}
