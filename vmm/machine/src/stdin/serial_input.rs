//! The device thread: what happens to devices from outside, on rust-vmm's event manager.
//!
//! That is stdin to the serial port. It begins when the guest's driver wants input; a terminal is then
//! the guest's (`terminal`) until the thread ends, but for the times when this process is in the background:
//! then the keys are the shell's, and the thread looks now and then whether that is over, which nobody tells.
//! Virtio devices have threads of their own.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_os::tty;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::terminal::{Key, RawTerminal};
use crate::{Guest, GuestEnd};

const STDIN: RawFd = libc::STDIN_FILENO;
/// How often to look whether this process has come to the foreground.
const LOOK: Duration = Duration::from_millis(300);

/// The device thread of one guest; ends when dropped.
#[derive(Debug)]
pub struct DeviceThread {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    requested: AtomicBool,
    event: EventFd,
}

impl DeviceThread {
    /// Starts the thread for `guest`, which gets this program's stdin.
    ///
    /// # Errors
    /// If the host gives no thread or event.
    pub fn spawn(guest: Arc<Guest>) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            requested: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK)?,
        });
        let mut manager =
            EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(io::Error::other)?;
        manager.add_subscriber(Box::new(StopEvent(Arc::clone(&stop))));
        manager.add_subscriber(Box::new(SerialInput::new(guest)?));
        let until = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || {
                // A guest that wants keys is no reason to stop all of them.
                let _ = tty::outlive_the_background();
                while !until.requested.load(Ordering::Acquire) {
                    if manager.run().is_err() {
                        // Guests run on without input.
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.stop.requested.store(true, Ordering::Release);
        let _ = self.stop.event.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Wakes the thread so that it sees that it should end.
struct StopEvent(Arc<Stop>);

impl MutEventSubscriber for StopEvent {
    fn process(&mut self, _: Events, _: &mut EventOps) {}

    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(&self.0.event, EventSet::IN));
    }
}

/// Where stdin is in its life as input of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdin {
    /// Nobody wants it yet, or the guest has no room.
    Resting,
    /// Read when readable.
    Watched,
    /// A terminal that is somebody else's for now.
    Elsewhere,
    /// A regular file: cannot be watched, can always be read.
    File,
    /// At its end.
    Over,
}

/// stdin to the serial port, no faster than the guest reads it.
struct SerialInput {
    guest: Arc<Guest>,
    stdin: Stdin,
    terminal: Option<RawTerminal>,
    /// Whether the user has been told how to leave.
    told: bool,
    /// Runs while the terminal is elsewhere.
    look: TimerFd,
}

impl SerialInput {
    fn new(guest: Arc<Guest>) -> io::Result<Self> {
        Ok(Self {
            guest,
            stdin: Stdin::Resting,
            terminal: None,
            told: false,
            look: TimerFd::new()?,
        })
    }

    fn watch(&mut self, ops: &mut EventOps) {
        if self.terminal.is_none() {
            self.terminal = RawTerminal::new(io::stdin().as_fd());
            if let Some(terminal) = &self.terminal {
                let _ = ops.add(Events::new(terminal.continued(), EventSet::IN));
            }
        }
        if let Some(terminal) = &self.terminal {
            if !terminal.is_ours() {
                return self.look_later(ops);
            }
            if !mem::replace(&mut self.told, true) {
                // Nobody may be reading, which is no reason to fail.
                let _ = writeln!(
                    io::stderr(),
                    "baton: the keys are the guest's; Ctrl-a x leaves"
                );
            }
        }
        self.stdin = match ops.add(Events::new_raw(STDIN, EventSet::IN)) {
            Ok(()) => Stdin::Watched,
            Err(_) => Stdin::File,
        };
    }

    fn rest(&mut self, ops: &mut EventOps, stdin: Stdin) {
        if self.stdin == Stdin::Watched {
            let _ = ops.remove(Events::empty_raw(STDIN));
        }
        self.stdin = stdin;
    }

    /// The terminal is not ours: to read it now would take the shell's keys.
    fn look_later(&mut self, ops: &mut EventOps) {
        self.rest(ops, Stdin::Elsewhere);
        // The time is valid, and a timer that is not armed is started by the next continuation.
        let _ = self.look.reset(LOOK, None);
    }

    /// Moves what there is room for; never more, so nothing is kept here.
    fn transfer(&mut self, ops: &mut EventOps) {
        if self
            .terminal
            .as_ref()
            .is_some_and(|terminal| !terminal.is_ours())
        {
            return self.look_later(ops);
        }
        let mut buffer = [0u8; 64];
        let room = self.guest.serial().room().min(buffer.len());
        if room == 0 {
            return self.rest(ops, Stdin::Resting);
        }
        // SAFETY: the buffer has at least `room` bytes.
        let read = unsafe { libc::read(STDIN, buffer.as_mut_ptr().cast(), room) };
        match usize::try_from(read) {
            Ok(0) => self.rest(ops, Stdin::Over),
            Ok(length) => self.typed(&mut buffer[..length]),
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                // It went to the background a moment ago.
                _ if self
                    .terminal
                    .as_ref()
                    .is_some_and(|terminal| !terminal.is_ours()) =>
                {
                    self.look_later(ops);
                }
                _ => self.rest(ops, Stdin::Over),
            },
        }
    }

    /// The timer, or a continuation: whose is the terminal now?
    fn look(&mut self, ops: &mut EventOps) {
        if self.stdin == Stdin::Elsewhere {
            self.watch(ops);
        } else if let Some(terminal) = &self.terminal
            && !terminal.is_ours()
            && self.stdin == Stdin::Watched
        {
            self.look_later(ops);
        }
    }
}

impl SerialInput {
    /// Gives the guest what is for it.
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
                Key::Leave => return self.guest.end(GuestEnd::Killed),
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
        if events.fd() == self.look.as_raw_fd() {
            // So that it is readable no more.
            let _ = self.look.clear();
            return self.look(ops);
        }
        let continued = |terminal: &RawTerminal| terminal.continued().as_raw_fd();
        if self.terminal.as_ref().map(continued) == Some(events.fd()) {
            if let Some(terminal) = &self.terminal {
                let _ = terminal.continued().read();
            }
            return self.look(ops);
        }
        let wanted = self.guest.serial().take_attention();
        if wanted && self.stdin == Stdin::Resting {
            self.watch(ops);
        }
        if wanted && self.stdin == Stdin::File {
            self.transfer(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(self.guest.serial(), EventSet::IN));
        let _ = ops.add(Events::new(&self.look, EventSet::IN));
    }
}
