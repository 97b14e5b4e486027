//! A process that ends with this one, whatever happens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use baton_os::event::wait_readable;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

/// How long a process may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that has ended when this is dropped.
#[derive(Debug)]
pub(super) struct OwnChild {
    child: Child,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl OwnChild {
    /// Starts `command`. Ctrl-C at the terminal does not reach the process, so that it is this process that ends it. It
    /// is killed when the calling thread ends, as by a kill of this process.
    ///
    /// # Errors
    /// If the host refuses.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have ended before.
            match getppid() == Some(parent) {
                true => Ok(()),
                false => Err(io::ErrorKind::BrokenPipe.into()),
            }
        };
        command.process_group(0);
        // SAFETY: the closure makes system calls only and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let mut child = command.spawn()?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                child,
                pidfd,
                status: None,
            }),
            Err(error) => {
                // It has been waited for afterwards, so its number is its own until then.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// If the host refuses.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Tells it to end, and waits for that for a moment.
    fn terminate(&mut self) -> io::Result<Option<ExitStatus>> {
        pidfd_send_signal(&self.pidfd, Signal::TERM)?;
        wait_readable(&[self.as_fd()], Some(PATIENCE))?;
        self.status()
    }
}

/// Becomes readable when the process ends.
impl AsFd for OwnChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.status() {
            return;
        }
        if !matches!(self.terminate(), Ok(Some(_))) {
            // One that has ended is not killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> OwnChild {
        OwnChild::spawn(Command::new("/bin/sh").args(["-c", script])).expect("a shell")
    }

    #[test]
    fn the_file_is_readable_when_the_process_has_ended() {
        let mut child = shell("exit 7");
        wait_readable(&[child.as_fd()], None).expect("waited");
        let status = child.status().expect("a child");
        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn a_process_that_runs_has_ended_when_it_is_dropped() {
        let child = shell("exec sleep 1000");
        let pidfd = child.pidfd.try_clone().expect("a file");
        drop(child);
        let gone = pidfd_send_signal(pidfd, Signal::TERM);
        assert_eq!(gone, Err(rustix::io::Errno::SRCH));
    }
}
