//! The signal that makes a thread of another process leave the guest.
//!
//! A pidfd of the thread, which Linux has since 6.9, reaches this thread or none. Before, the signal goes to
//! the thread's id within its process, after a check by the process's pidfd that the process lives. Only if
//! the process ended after the check, and both ids were reused before the signal, would another process get
//! the signal.
//!
//! The kernel permits both to a process of the same user, or with `CAP_KILL`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::foreign_error::ForeignError;

/// `PIDFD_THREAD`: a pidfd of one thread.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// The way to kick one thread of another process.
#[derive(Debug)]
pub struct KickSignal {
    target: Target,
    signo: i32,
}

#[derive(Debug)]
enum Target {
    Thread(OwnedFd),
    /// Before Linux 6.9: the pidfd of the process, and the ids of process and thread.
    Ids(OwnedFd, i32, i32),
}

impl KickSignal {
    /// Kicks thread `tid` of the process `pid`, whose pidfd is `process`, by the signal `signo`.
    pub(crate) fn new(
        process: &OwnedFd,
        pid: i32,
        tid: i32,
        signo: i32,
    ) -> Result<Self, ForeignError> {
        if !(libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signo) {
            return Err(ForeignError::Signal(signo));
        }
        let host = |error| ForeignError::Host { pid, error };
        let target = match open_thread(tid) {
            Ok(pidfd) => Target::Thread(pidfd),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Target::Ids(process.try_clone().map_err(host)?, pid, tid)
            }
            Err(error) => return Err(host(error)),
        };
        Ok(Self { target, signo })
    }

    /// Sends the signal. False: the thread has ended, or the kernel does not permit it.
    #[must_use]
    pub fn send(&self) -> bool {
        match &self.target {
            Target::Thread(pidfd) => send_by_pidfd(pidfd, self.signo),
            Target::Ids(process, pid, tid) => {
                // Signal 0 only checks that the process lives.
                send_by_pidfd(process, 0) && send_by_ids(*pid, *tid, self.signo)
            }
        }
    }
}

fn open_thread(tid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just returned this file, which nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn send_by_pidfd(pidfd: &OwnedFd, signo: i32) -> bool {
    let (fd, no_info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the kernel fills in the signal's information itself.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signo, no_info, 0) == 0 }
}

fn send_by_ids(pid: i32, tid: i32, signo: i32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signo) == 0 }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use baton_os::signals::{self, RtSignal};
    use baton_os::sys;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    /// Blocks the signal on a thread, sends it by `kick`, and has the thread wait for it.
    fn reaches_its_thread(kick: impl FnOnce(i32, i32) -> KickSignal) {
        let signo = RtSignal::HostSchedKick.number();
        let (send_id, id) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let _mask = signals::block(&[signo]);
            send_id.send(sys::thread_id()).expect("received");
            wait.recv().expect("the signal was sent");
            let mut pending = std::mem::MaybeUninit::uninit();
            // SAFETY: the kernel fills the set in.
            unsafe {
                libc::sigpending(pending.as_mut_ptr());
                libc::sigismember(pending.as_ptr(), signo) == 1
            }
        });
        let signal = kick(id.recv().expect("an id"), signo);
        assert!(signal.send());
        go_on.send(()).expect("it waits");
        assert!(thread.join().expect("a thread"));
        while signal.send() {
            // The thread is gone for the kernel a moment after it is gone for those who join it.
            thread::yield_now();
        }
    }

    fn own_pidfd() -> OwnedFd {
        pidfd_open(getpid(), PidfdFlags::empty()).expect("this process")
    }

    #[test]
    fn a_kick_reaches_its_thread_and_none_when_that_has_ended() {
        let pid = getpid().as_raw_pid();
        reaches_its_thread(|tid, signo| {
            KickSignal::new(&own_pidfd(), pid, tid, signo).expect("a thread")
        });
    }

    #[test]
    fn a_kick_by_ids_does_the_same() {
        let pid = getpid().as_raw_pid();
        reaches_its_thread(|tid, signo| KickSignal {
            target: Target::Ids(own_pidfd(), pid, tid),
            signo,
        });
    }
}
