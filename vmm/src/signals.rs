//! All signal handling: Ctrl-C and SIGTERM as a file to poll, and the kick that interrupts
//! `KVM_RUN`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The signals that ask the program to stop.
const STOP: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// SIGINT and SIGTERM, blocked in this thread and all that it starts, and readable as a file.
///
/// Dropping it lets them through again with their usual effect, so that a second Ctrl-C ends a
/// program that does not come to an end by itself.
#[derive(Debug)]
pub struct StopSignals {
    file: OwnedFd,
    before: libc::sigset_t,
}

impl StopSignals {
    /// Blocks the signals; to be called before any thread is started.
    ///
    /// # Errors
    /// If the kernel gives no file.
    pub fn block() -> io::Result<Self> {
        // SAFETY: the sets are initialized by sigemptyset before they are used; the signal numbers
        // are valid.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in STOP {
                libc::sigaddset(&raw mut set, signal);
            }
            let mut before: libc::sigset_t = mem::zeroed();
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                let error = io::Error::last_os_error();
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
                return Err(error);
            }
            Ok(Self {
                file: OwnedFd::from_raw_fd(fd),
                before,
            })
        }
    }

    /// Takes the signals that are pending: whether there were any.
    #[must_use]
    pub fn take(&self) -> bool {
        let mut taken = false;
        loop {
            let mut info = mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
            // SAFETY: the buffer has the size that is given.
            let read = unsafe {
                libc::read(
                    self.file.as_raw_fd(),
                    info.as_mut_ptr().cast(),
                    mem::size_of::<libc::signalfd_siginfo>(),
                )
            };
            if read <= 0 {
                return taken;
            }
            taken = true;
        }
    }
}

impl AsRawFd for StopSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        // SAFETY: restores the mask that this thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }
}

/// The signal that interrupts a thread in `KVM_RUN`.
#[must_use]
pub fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Makes [`kick_signal`] interrupt system calls and do nothing else.
///
/// # Errors
/// If the kernel refuses the handler.
pub fn install_kick() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(kick_signal(), nothing).map_err(Into::into)
}

/// Sends [`kick_signal`] to thread `tid` of this process; nothing happens if it is gone.
pub fn kick(tid: libc::pid_t) {
    send(tid, kick_signal());
}

/// Sends `signo` to thread `tid` of this process; nothing happens if it is gone.
pub(crate) fn send(tid: libc::pid_t, signo: libc::c_int) {
    // SAFETY: no memory is involved; a thread id of another process is refused by the kernel.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signo) };
}
