//! A session on a terminal of its own.

use std::fs::File;
use std::io::Read;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::{Arc, Mutex};

use super::Running;

/// A terminal, and the session whose controlling terminal it is.
pub struct Session {
    /// Where keys are typed and output is shown.
    pub master: File,
    /// The terminal.
    pub slave: OwnedFd,
    /// All that was shown so far.
    pub shown: Arc<Mutex<Vec<u8>>>,
    /// Its leader.
    pub leader: Running,
}

impl Session {
    /// Runs `command` as the leader of a session on a terminal of its own.
    pub fn start(mut command: Command) -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: the two numbers are written; no name, settings or size are given.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        assert_eq!(opened, 0);
        // SAFETY: files that were just opened and belong to nobody else.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let copy = || slave.try_clone().expect("a file");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let leader = Running::spawn(&mut command);
        let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut reader = master.try_clone().expect("a file");
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                to.lock()
                    .expect("lock")
                    .extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            master,
            slave,
            shown,
            leader,
        }
    }

    pub fn modes(&self) -> (u32, u32) {
        // SAFETY: an all-zero termios is valid, and the kernel fills it.
        unsafe {
            let mut termios: libc::termios = mem::zeroed();
            let got = libc::tcgetattr(self.slave.as_raw_fd(), &raw mut termios);
            assert_eq!(got, 0);
            (termios.c_lflag, termios.c_iflag)
        }
    }

    /// Sets modes as a shell does for itself.
    pub fn set_modes(&self, (local, input): (u32, u32)) {
        // SAFETY: modes that the kernel gave, with some flags replaced.
        unsafe {
            let mut termios: libc::termios = mem::zeroed();
            libc::tcgetattr(self.slave.as_raw_fd(), &raw mut termios);
            (termios.c_lflag, termios.c_iflag) = (local, input);
            libc::tcsetattr(self.slave.as_raw_fd(), libc::TCSANOW, &raw const termios);
        }
    }

    pub fn is_raw(&self) -> bool {
        self.modes().0 & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }

    /// Waits until `is_so`, which `what` describes.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let shown = self.text();
            self.leader.assert_alive(&format!("{what}; shown: {shown}"));
            std::thread::yield_now();
        }
    }

    /// Waits until `text` is shown, whether or not the leader has ended.
    pub fn until_shown(&self, text: &str) {
        while !self.text().contains(text) {
            std::thread::yield_now();
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("lock")).into_owned()
    }

    /// Waits until a line that begins with `word` is shown, and returns the rest of the line.
    pub fn line(&mut self, word: &str) -> String {
        let find = |session: &Self| {
            let text = session.text();
            let lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let mut rests =
                lines.filter_map(|line| Some(line.trim().strip_prefix(word)?.to_owned()));
            rests.next()
        };
        self.until(word, |session| find(session).is_some());
        find(self).expect("a line")
    }

    pub fn end(mut self) -> ExitStatus {
        self.leader.wait().expect("it ends")
    }
}
