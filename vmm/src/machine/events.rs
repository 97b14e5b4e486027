//! The device thread: what happens to devices from outside, on rust-vmm's event manager.
//!
//! So far that is stdin to the serial port. It begins when the guest's driver wants input, and a
//! terminal is then switched to hand over single characters; it is switched back when the thread
//! ends.

use std::io::{self, IsTerminal};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Guest;

const STDIN: RawFd = libc::STDIN_FILENO;

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
        manager.add_subscriber(Box::new(SerialInput::new(guest)));
        let until = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || {
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
    /// A regular file: cannot be watched, can always be read.
    File,
    /// At its end.
    Over,
}

/// stdin to the serial port, no faster than the guest reads it.
struct SerialInput {
    guest: Arc<Guest>,
    stdin: Stdin,
    terminal: Option<Terminal>,
}

impl SerialInput {
    fn new(guest: Arc<Guest>) -> Self {
        Self {
            guest,
            stdin: Stdin::Resting,
            terminal: None,
        }
    }

    fn watch(&mut self, ops: &mut EventOps) {
        if self.terminal.is_none() {
            self.terminal = Terminal::single_characters();
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

    /// Moves what there is room for; never more, so nothing is kept here.
    fn transfer(&mut self, ops: &mut EventOps) {
        let mut buffer = [0u8; 64];
        let room = self.guest.serial().room().min(buffer.len());
        if room == 0 {
            return self.rest(ops, Stdin::Resting);
        }
        // SAFETY: the buffer has at least `room` bytes.
        let read = unsafe { libc::read(STDIN, buffer.as_mut_ptr().cast(), room) };
        match usize::try_from(read) {
            Ok(0) => self.rest(ops, Stdin::Over),
            Ok(length) => {
                self.guest.serial().input(&buffer[..length]);
            }
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                _ => self.rest(ops, Stdin::Over),
            },
        }
    }
}

impl MutEventSubscriber for SerialInput {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == STDIN {
            return self.transfer(ops);
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
    }
}

/// A terminal that hands over single characters and does not echo them, until dropped. Ctrl-C still
/// stops the run.
struct Terminal(libc::termios);

impl Terminal {
    fn single_characters() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        // SAFETY: an all-zero termios is valid, and the kernel fills it.
        let before = unsafe {
            let mut termios: libc::termios = mem::zeroed();
            if libc::tcgetattr(STDIN, &raw mut termios) != 0 {
                return None;
            }
            termios
        };
        let mut single = before;
        single.c_lflag &= !(libc::ICANON | libc::ECHO);
        single.c_iflag &= !libc::ICRNL;
        // SAFETY: settings that the kernel gave, with some bits cleared.
        unsafe { libc::tcsetattr(STDIN, libc::TCSANOW, &raw const single) };
        Some(Self(before))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // SAFETY: the settings that the kernel gave.
        unsafe { libc::tcsetattr(STDIN.as_raw_fd(), libc::TCSANOW, &raw const self.0) };
    }
}
