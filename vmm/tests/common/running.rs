//! Processes that a test has started, none of which outlives its test or keeps it waiting for ever.

use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Ran;

/// Seconds after which a process is killed. Only a process that hangs takes so long.
const LONGEST: i64 = 600;

/// A process that is killed when it is dropped, or after a long time ([`LONGEST`] as a rule). So everything that waits for its end or
/// reads its output comes to an end, too.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_for(command, LONGEST)
    }

    /// Starts `command`, which may take so many seconds.
    pub fn spawn_for(command: &mut Command, seconds: i64) -> Self {
        let child = command.spawn().expect("the program starts");
        let pid = Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("a process");
        thread::spawn(move || kill_if_it_hangs(&process, seconds));
        Self(child)
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id")
    }

    /// Sends `signal` to the process.
    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is involved, and the process was not waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits until `is_so`, which `what` describes. Panics if the process ends before.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            self.assert_alive(what);
            thread::yield_now();
        }
    }

    /// Panics with the output so far if the process has ended before what `what` describes.
    pub fn assert_alive(&mut self, what: &str) {
        let Some(status) = self.0.try_wait().expect("a child") else {
            return;
        };
        let output = self.collect();
        panic!("the process ended ({status}) before this: {what}: {output:?}");
    }

    /// Waits for the end of the process and returns what it printed to pipes.
    pub fn output(mut self) -> Output {
        self.collect()
    }

    /// Waits for the end of the process, which must not be ended by a signal.
    pub fn finish(self) -> Ran {
        let output = self.output();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let Some(code) = output.status.code() else {
            let signal = output.status.signal();
            panic!(
                "ended by signal {signal:?} (9 if it hung); standard output:\n\
                 {stdout}\nstandard error:\n{stderr}"
            );
        };
        Ran {
            code,
            stdout,
            stderr,
        }
    }

    fn collect(&mut self) -> Output {
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let errors = thread::spawn(move || read_all(stderr));
        let stdout = read_all(stdout);
        Output {
            status: self.0.wait().expect("a child"),
            stdout,
            stderr: errors.join().expect("no panic"),
        }
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kill_if_it_hangs(process: &OwnedFd, seconds: i64) {
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let mut end = [PollFd::new(process, PollFlags::IN)];
    if poll(&mut end, Some(&timeout)).is_ok_and(|ready| ready == 0) {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).expect("a pipe");
    }
    bytes
}
