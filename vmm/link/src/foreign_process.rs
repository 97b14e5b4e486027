//! The process at the other end of the control socket, and its threads, as the kernel knows them.
//!
//! Ids of processes and threads are reused. So the process is held by a pidfd and by its directory below
//! `/proc`, which both belong to the process and not to its number. A thread's files are opened below that
//! directory, so they are files of a thread of this process, whatever ids its messages name.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags};

use crate::foreign_clock::ForeignThreadClock;
use crate::foreign_error::ForeignError;
use crate::kick_signal::KickSignal;

/// Who is at the other end of a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process that connected.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Another process.
#[derive(Debug)]
pub struct ForeignProcess {
    credentials: Credentials,
    pidfd: OwnedFd,
    /// `/proc/PID/task`.
    tasks: OwnedFd,
}

/// A thread of another process.
#[derive(Debug)]
pub struct ForeignThread {
    /// Its CPU time.
    pub clock: ForeignThreadClock,
    /// The way to kick it.
    pub kick: KickSignal,
}

impl ForeignProcess {
    /// The process that connected to this Unix `socket`.
    ///
    /// # Errors
    /// If it has ended, or the host refuses to show it.
    pub fn of_peer(socket: impl AsFd) -> Result<Self, ForeignError> {
        let peer = sockopt::socket_peercred(&socket).map_err(|_| ForeignError::Ended)?;
        let credentials = Credentials {
            pid: peer.pid.as_raw_pid(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        };
        Self::open(credentials, peer.pid)
    }

    fn open(credentials: Credentials, pid: Pid) -> Result<Self, ForeignError> {
        let host = |error: rustix::io::Errno| match error {
            rustix::io::Errno::SRCH | rustix::io::Errno::NOENT => ForeignError::Ended,
            error => ForeignError::Host {
                pid: credentials.pid,
                error: error.into(),
            },
        };
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(host)?;
        let path = format!("/proc/{}/task", credentials.pid);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let tasks = rustix::fs::open(path, flags, Mode::empty()).map_err(host)?;
        let process = Self {
            credentials,
            pidfd,
            tasks,
        };
        // The directory is that of the pidfd's process only if that process has the id still.
        match process.has_ended() {
            true => Err(ForeignError::Ended),
            false => Ok(process),
        }
    }

    /// Who it is.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Becomes readable when the process ends.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::time::Timespec::try_from(Duration::ZERO).ok();
        // A poll that fails cannot show that it lives.
        rustix::event::poll(&mut polled, now.as_ref()) != Ok(0)
    }

    /// Its thread `tid`, which `signo` is to kick.
    ///
    /// # Errors
    /// If it has no such thread, or `signo` is no real-time signal.
    pub fn thread(&self, tid: i32, signo: i32) -> Result<ForeignThread, ForeignError> {
        let pid = self.credentials.pid;
        let missing = ForeignError::NoThread { pid, tid };
        if tid <= 0 {
            return Err(missing);
        }
        let path = format!("{tid}/schedstat");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&self.tasks, path, flags, Mode::empty()) else {
            return Err(missing);
        };
        let mut clock = ForeignThreadClock::new(File::from(file));
        let kick = KickSignal::new(&self.pidfd, pid, tid, signo)?;
        // If the thread still runs, its id was not reused when the kick's file was opened.
        match clock.ran_ns() {
            Ok(_) => Ok(ForeignThread { clock, kick }),
            Err(_) => Err(missing),
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use baton_os::signals::RtSignal;
    use baton_os::sys;

    use super::*;

    fn signo() -> i32 {
        RtSignal::ExecutorKick.number()
    }

    fn this_process() -> ForeignProcess {
        let (socket, _other) = UnixStream::pair().expect("sockets");
        ForeignProcess::of_peer(&socket).expect("this process")
    }

    #[test]
    fn the_peer_of_a_socket_is_known_by_process_and_user() {
        let own = Credentials {
            pid: std::process::id() as i32,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        assert_eq!(this_process().credentials(), own);
        assert!(!this_process().has_ended());
    }

    #[test]
    fn threads_of_other_processes_are_refused() {
        let process = this_process();
        assert!(process.thread(sys::thread_id(), signo()).is_ok());
        for tid in [1, 2, 0, -1, i32::MAX, i32::MIN] {
            let refused = process.thread(tid, signo());
            assert!(
                matches!(refused, Err(ForeignError::NoThread { .. })),
                "{tid}"
            );
        }
    }

    #[test]
    fn only_real_time_signals_can_be_kicks() {
        let process = this_process();
        for signo in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, 33, 65, -1] {
            let refused = process.thread(sys::thread_id(), signo);
            assert!(matches!(refused, Err(ForeignError::Signal(n)) if n == signo));
        }
    }

    #[test]
    fn a_process_that_has_ended_is_noticed_and_its_threads_are_gone() {
        let mut cat = Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).spawn().expect("a process");
        let pid = child.id() as i32;
        let credentials = Credentials {
            pid,
            ..this_process().credentials()
        };
        let id = Pid::from_child(&child);
        let process = ForeignProcess::open(credentials, id).expect("it runs");
        let mut thread = process.thread(pid, signo()).expect("its first thread");
        assert!(!process.has_ended() && thread.clock.ran_ns().is_ok());
        drop(child.stdin.take());
        child.wait().expect("it ended");
        assert!(process.has_ended());
        assert!(thread.clock.ran_ns().is_err());
        assert!(!thread.kick.send());
        let refused = ForeignProcess::open(credentials, id);
        assert!(matches!(refused, Err(ForeignError::Ended)));
    }
}
