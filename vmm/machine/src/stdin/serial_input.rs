//! From stdin to the serial port, no faster than the guest reads.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use baton_os::raw_terminal::{Key, RawTerminal};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use crate::guest::{Guest, GuestEnd};

const STDIN: RawFd = libc::STDIN_FILENO;
/// How often to check whether this process has come to the foreground.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

/// The letter that ends the guest when it is typed behind Ctrl-a, as in QEMU.
const LEAVE: u8 = b'x';

/// What is done with stdin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StdinState {
    /// It is not read: the guest does not accept input yet, or has no room.
    Paused,
    /// It is read when readable.
    Watched,
    /// It is not read: it is a terminal, and this process is in the background.
    Background,
    /// It is read whenever the guest has room: it is a regular file, which cannot be watched.
    File,
    /// It is at its end.
    Ended,
}

/// stdin to the serial port, no faster than the guest reads it.
pub(super) struct SerialInput {
    guest: Arc<Guest>,
    stdin: StdinState,
    terminal: Option<RawTerminal>,
    /// Whether the user has been shown how to leave.
    is_explained: bool,
    /// Runs while this process is in the background.
    foreground_check: TimerFd,
}

impl SerialInput {
    pub(super) fn new(guest: Arc<Guest>) -> io::Result<Self> {
        Ok(Self {
            guest,
            stdin: StdinState::Paused,
            terminal: None,
            is_explained: false,
            foreground_check: TimerFd::new()?,
        })
    }

    fn watch(&mut self, ops: &mut EventOps) {
        if self.terminal.is_none() {
            self.terminal = RawTerminal::new(io::stdin().as_fd(), LEAVE);
            if let Some(terminal) = &self.terminal {
                let _ = ops.add(Events::new(terminal.continued(), EventSet::IN));
            }
        }
        if let Some(terminal) = &self.terminal {
            if !terminal.is_ours() {
                return self.wait_for_foreground(ops);
            }
            if !mem::replace(&mut self.is_explained, true) {
                // Standard error may have no reader, which is no reason to fail.
                let _ = writeln!(
                    io::stderr(),
                    "baton: the keys are the guest's; Ctrl-a x leaves"
                );
            }
        }
        self.stdin = match ops.add(Events::new_raw(STDIN, EventSet::IN)) {
            Ok(()) => StdinState::Watched,
            Err(_) => StdinState::File,
        };
    }

    /// Ends the watch on stdin, with `stdin` as the new state.
    fn unwatch(&mut self, ops: &mut EventOps, stdin: StdinState) {
        if self.stdin == StdinState::Watched {
            let _ = ops.remove(Events::empty_raw(STDIN));
        }
        self.stdin = stdin;
    }

    /// Reads no keys until this process is in the foreground: until then they are the shell's.
    fn wait_for_foreground(&mut self, ops: &mut EventOps) {
        self.unwatch(ops, StdinState::Background);
        // The time is valid. If the timer cannot be armed, the next continuation of the process takes its
        // place.
        let _ = self.foreground_check.reset(CHECK_INTERVAL, None);
    }

    /// Moves as much input as the guest has room for. Never more, so no input is stored here.
    fn transfer(&mut self, ops: &mut EventOps) {
        if self.is_in_background() {
            return self.wait_for_foreground(ops);
        }
        let mut buffer = [0u8; 64];
        let room = self.guest.serial().room().min(buffer.len());
        if room == 0 {
            return self.unwatch(ops, StdinState::Paused);
        }
        // SAFETY: the buffer has at least `room` bytes.
        let read = unsafe { libc::read(STDIN, buffer.as_mut_ptr().cast(), room) };
        match usize::try_from(read) {
            Ok(0) => self.unwatch(ops, StdinState::Ended),
            Ok(length) => self.typed(&mut buffer[..length]),
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                // The process went to the background after the check above.
                _ if self.is_in_background() => self.wait_for_foreground(ops),
                _ => self.unwatch(ops, StdinState::Ended),
            },
        }
    }

    /// After the timer, or a continuation of the process: checks whose the terminal is now.
    fn check_foreground(&mut self, ops: &mut EventOps) {
        if self.stdin == StdinState::Background {
            self.watch(ops);
        } else if self.stdin == StdinState::Watched && self.is_in_background() {
            self.wait_for_foreground(ops);
        }
    }

    /// Whether stdin is a terminal whose keys are the shell's now.
    fn is_in_background(&self) -> bool {
        let terminal = self.terminal.as_ref();
        terminal.is_some_and(|terminal| !terminal.is_ours())
    }

    /// Gives the guest the keys that are for the guest.
    fn typed(&mut self, bytes: &mut [u8]) {
        let Some(terminal) = &mut self.terminal else {
            self.guest.serial().input(bytes);
            return;
        };
        let mut length = 0;
        for at in 0..bytes.len() {
            match terminal.press(bytes[at]) {
                Key::Guest(byte) => {
                    bytes[length] = byte;
                    length += 1;
                }
                Key::Leave => return self.guest.end(GuestEnd::Quit),
                Key::None => {}
            }
        }
        self.guest.serial().input(&bytes[..length]);
    }
}

impl MutEventSubscriber for SerialInput {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == STDIN {
            return self.transfer(ops);
        }
        if events.fd() == self.foreground_check.as_raw_fd() {
            // The timer is readable until it is cleared.
            let _ = self.foreground_check.clear();
            return self.check_foreground(ops);
        }
        let continued = |terminal: &RawTerminal| terminal.continued().as_raw_fd();
        if self.terminal.as_ref().map(continued) == Some(events.fd()) {
            if let Some(terminal) = &self.terminal {
                let _ = terminal.continued().read();
            }
            return self.check_foreground(ops);
        }
        let accepts_input = self.guest.serial().take_attention();
        if accepts_input && self.stdin == StdinState::Paused {
            self.watch(ops);
        }
        if accepts_input && self.stdin == StdinState::File {
            self.transfer(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(self.guest.serial(), EventSet::IN));
        let _ = ops.add(Events::new(&self.foreground_check, EventSet::IN));
    }
}
