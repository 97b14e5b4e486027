//! The modes of the user's terminal, changed for as long as this process has it.
//!
//! A terminal is shared: a shell takes it back when this process is stopped or put into the background,
//! sets modes of its own, and hands it over again later. So the modes are set whenever this process has
//! come to the foreground, and given back whenever it goes, also when it ends by a signal. In the
//! background they are the shell's: to touch them there would stop the process, with all its guests
//! (`SIGTTOU`).
//!
//! | what happens | what is done |
//! |---|---|
//! | `kill -TSTP` | back to the shell's modes, then stop (`signals.rs`) |
//! | `kill -STOP` | nothing can be done; most shells set their own modes |
//! | `fg` | set anew: the shell has set its own |
//! | `bg` | nothing; whoever reads the terminal looks now and then whether it is ours again |
//! | the end, in the foreground | back to the modes found last |
//! | the end, in the background | nothing |

use std::io::{self, IsTerminal};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The modes that are changed and given back; control characters and speeds stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// `c_iflag`.
    pub input: libc::tcflag_t,
    /// `c_oflag`.
    pub output: libc::tcflag_t,
    /// `c_cflag`.
    pub control: libc::tcflag_t,
    /// `c_lflag`.
    pub local: libc::tcflag_t,
}

impl Modes {
    fn of(terminal: RawFd) -> Option<Self> {
        let termios = termios(terminal)?;
        Some(Self {
            input: termios.c_iflag,
            output: termios.c_oflag,
            control: termios.c_cflag,
            local: termios.c_lflag,
        })
    }

    fn set(self, terminal: RawFd) -> bool {
        let Some(mut termios) = termios(terminal) else {
            return false;
        };
        termios.c_iflag = self.input;
        termios.c_oflag = self.output;
        termios.c_cflag = self.control;
        termios.c_lflag = self.local;
        // SAFETY: settings that the kernel gave, with some flags replaced.
        unsafe { libc::tcsetattr(terminal, libc::TCSANOW, &raw const termios) == 0 }
    }
}

fn termios(terminal: RawFd) -> Option<libc::termios> {
    // SAFETY: an all-zero termios is valid, and the kernel fills it.
    unsafe {
        let mut termios: libc::termios = mem::zeroed();
        (libc::tcgetattr(terminal, &raw mut termios) == 0).then_some(termios)
    }
}

/// Whether this process may set the modes of `terminal`: it is in the foreground there, or the terminal
/// is not the one that controls it, where there is no foreground.
fn in_foreground(terminal: RawFd) -> bool {
    // SAFETY: both take numbers only.
    let (group, own) = unsafe { (libc::tcgetpgrp(terminal), libc::getpgrp()) };
    group == own || group < 0
}

/// The terminal with changed modes; there is one at most.
#[derive(Debug)]
struct Held {
    terminal: OwnedFd,
    change: fn(Modes) -> Modes,
    /// The modes to give back, while ours are set.
    before: Option<Modes>,
    continued: Arc<EventFd>,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Sets the modes if that is ours to do; whether they are set.
    fn enter(&mut self) -> bool {
        let terminal = self.terminal.as_raw_fd();
        if !in_foreground(terminal) {
            return false;
        }
        let Some(found) = Modes::of(terminal) else {
            return false;
        };
        let wanted = (self.change)(found);
        // Ours may still be set: after SIGSTOP, under a shell that does not care.
        if found != wanted || self.before.is_none() {
            self.before = Some(found);
            IN_A_HANDLER.remember(terminal, found);
            return wanted.set(terminal);
        }
        true
    }

    fn leave(&mut self) {
        IN_A_HANDLER.forget();
        if let Some(before) = self.before.take()
            && in_foreground(self.terminal.as_raw_fd())
        {
            // A terminal that is gone needs no modes.
            let _ = before.set(self.terminal.as_raw_fd());
        }
    }
}

/// Keeps the modes of a terminal changed; given back when dropped.
#[derive(Debug)]
pub struct Changed {
    continued: Arc<EventFd>,
}

impl Changed {
    /// Changes the modes of `terminal` by `change` whenever this process is in the foreground there. `None`
    /// if it is no terminal, or another one is changed already.
    pub fn new(terminal: BorrowedFd, change: fn(Modes) -> Modes) -> Option<Self> {
        if !terminal.is_terminal() {
            return None;
        }
        let continued = Arc::new(EventFd::new(EFD_NONBLOCK).ok()?);
        let mut place = held();
        if place.is_some() {
            return None;
        }
        let held = place.insert(Held {
            terminal: terminal.try_clone_to_owned().ok()?,
            change,
            before: None,
            continued: Arc::clone(&continued),
        });
        held.enter();
        Some(Self { continued })
    }

    /// Whether the terminal is ours now; the modes are set if it is.
    pub fn is_ours(&self) -> bool {
        held().as_mut().is_some_and(Held::enter)
    }

    /// Becomes readable when the process goes on after a stop.
    pub fn continued(&self) -> &EventFd {
        &self.continued
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Some(mut held) = held().take() {
            held.leave();
        }
    }
}

/// The process is about to be stopped: the terminal is somebody else's from here on.
pub fn give_back() {
    if let Some(held) = held().as_mut() {
        held.leave();
    }
}

/// The process goes on: the terminal may be ours again.
pub fn take_again() {
    if let Some(held) = held().as_mut() {
        held.enter();
        // Only a counter at its maximum refuses a write.
        let _ = held.continued.write(1);
    }
}

/// Lets the calling thread read and set a terminal without being stopped for it in the background, where
/// that fails instead.
pub fn outlive_the_background() -> io::Result<()> {
    // SAFETY: the set is initialized before it is used, and the signals are valid ones.
    let result = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTTIN);
        libc::sigaddset(&raw mut set, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What a signal handler needs: it can take no lock.
struct InAHandler {
    /// -1: nothing to give back.
    terminal: AtomicI32,
    modes: [AtomicU32; 4],
}

static IN_A_HANDLER: InAHandler = InAHandler {
    terminal: AtomicI32::new(-1),
    modes: [const { AtomicU32::new(0) }; 4],
};

impl InAHandler {
    fn remember(&self, terminal: RawFd, modes: Modes) {
        let Modes {
            input,
            output,
            control,
            local,
        } = modes;
        for (place, mode) in self.modes.iter().zip([input, output, control, local]) {
            place.store(mode, Ordering::Relaxed);
        }
        self.terminal.store(terminal, Ordering::Release);
    }

    fn forget(&self) {
        self.terminal.store(-1, Ordering::Release);
    }
}

/// Gives the modes back where nothing else can be done any more. May be called in a signal handler.
pub fn give_back_in_a_handler() {
    let terminal = IN_A_HANDLER.terminal.load(Ordering::Acquire);
    if terminal < 0 || !in_foreground(terminal) {
        return;
    }
    let [input, output, control, local] =
        [0, 1, 2, 3].map(|at| IN_A_HANDLER.modes[at].load(Ordering::Relaxed));
    let modes = Modes {
        input,
        output,
        control,
        local,
    };
    modes.set(terminal);
}
