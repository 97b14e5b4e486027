//! A pseudo-terminal with a screen that can be read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
const ROWS: u16 = 40;
const COLUMNS: u16 = 150;

/// A pseudo-terminal, and what it shows.
pub struct Terminal {
    ours: File,
    theirs: OwnedFd,
    screen: vt100::Parser,
}

impl Terminal {
    pub fn new() -> Self {
        let size = libc::winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut ours, mut theirs) = (0, 0);
        // SAFETY: two descriptors are written, the size is read, and nothing else is asked for.
        let made = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(made, 0, "a pseudo-terminal");
        for fd in [ours, theirs] {
            // SAFETY: the descriptor was just opened; other tests' children need not have it.
            assert_eq!(
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) },
                0
            );
        }
        // SAFETY: both were just opened, and belong to nobody else.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        Self {
            ours,
            theirs,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Starts `command` with this as its terminal.
    pub fn start(&self, command: &mut Command) -> Child {
        let io = || Stdio::from(self.theirs.try_clone().expect("descriptor"));
        command
            .env("TERM", "xterm")
            .stdin(io())
            .stdout(io())
            .stderr(io())
            .spawn()
            .expect("starts")
    }

    /// Local and input modes.
    pub fn modes(&self) -> (u32, u32) {
        // SAFETY: the descriptor is open, and tcgetattr fills the structure.
        unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            let got = libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut modes);
            assert_eq!(got, 0);
            (modes.c_lflag, modes.c_iflag)
        }
    }

    /// Presses `keys`.
    pub fn types(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("types");
    }

    /// Waits until the screen shows all of `these` and none of `those`.
    pub fn shows(&mut self, these: &[&str], those: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.screen.screen().contents();
            let has = |part: &&&str| text.contains(**part);
            if these.iter().all(|part| has(&part)) && !those.iter().any(|part| has(&part)) {
                return;
            }
            assert!(
                Instant::now() < until,
                "waited for {these:?} without {those:?}, and saw:\n{text}"
            );
            self.take(100);
        }
    }

    /// Waits until `child` has ended, and takes what it draws until then.
    pub fn wait(&mut self, child: &mut Child) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("child") {
                while self.take(0) {}
                return status;
            }
            assert!(Instant::now() < until, "it did not end");
            self.take(10);
        }
    }

    /// Whether the main screen is shown, with its cursor.
    pub fn is_as_it_was(&self) -> bool {
        let screen = self.screen.screen();
        !screen.alternate_screen() && !screen.hide_cursor()
    }

    /// Takes what has been drawn, if it comes within so many milliseconds: whether anything did.
    fn take(&mut self, timeout: i32) -> bool {
        let mut file = libc::pollfd {
            fd: self.ours.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, which lives through the call.
        if unsafe { libc::poll(&raw mut file, 1, timeout) } < 1 {
            return false;
        }
        let mut some = [0; 4096];
        let got = self.ours.read(&mut some).expect("reads");
        self.screen.process(&some[..got]);
        got > 0
    }
}
