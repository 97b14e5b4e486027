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
//! | `bg` | nothing; the thread that reads the terminal checks now and then whether it is in the foreground |
//! | the end, in the foreground | back to the modes found last |
//! | the end, in the background | nothing |

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, tcgetattr, tcgetpgrp,
    tcsetattr,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::signals::mask;

/// The modes that are changed and given back. Control characters and speeds stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// `c_iflag`.
    pub input: InputModes,
    /// `c_oflag`.
    pub output: OutputModes,
    /// `c_cflag`.
    pub control: ControlModes,
    /// `c_lflag`.
    pub local: LocalModes,
}

impl Modes {
    fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let termios = tcgetattr(terminal).ok()?;
        Some(Self {
            input: termios.input_modes,
            output: termios.output_modes,
            control: termios.control_modes,
            local: termios.local_modes,
        })
    }

    fn set(self, terminal: BorrowedFd<'_>) -> bool {
        let Ok(mut termios) = tcgetattr(terminal) else {
            return false;
        };
        termios.input_modes = self.input;
        termios.output_modes = self.output;
        termios.control_modes = self.control;
        termios.local_modes = self.local;
        tcsetattr(terminal, OptionalActions::Now, &termios).is_ok()
    }
}

/// Whether this process may set the modes of `terminal`: it is in the foreground there, or the terminal
/// is not the one that controls it, where there is no foreground.
fn in_foreground(terminal: BorrowedFd<'_>) -> bool {
    match tcgetpgrp(terminal) {
        Ok(group) => group == getpgrp(),
        // The foreground is a process group of another PID namespace.
        Err(Errno::OPNOTSUPP) => false,
        Err(_) => true,
    }
}

/// The terminal with changed modes; there is one at most.
#[derive(Debug)]
struct Held {
    terminal: OwnedFd,
    change: fn(Modes) -> Modes,
    /// The modes to give back, while the changed ones are set.
    before: Option<Modes>,
    continued: Arc<EventFd>,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Sets the modes if this process is in the foreground. Returns whether they are set.
    fn enter(&mut self) -> bool {
        let terminal = self.terminal.as_fd();
        if !in_foreground(terminal) {
            return false;
        }
        let Some(found) = Modes::of(terminal) else {
            return false;
        };
        let changed = (self.change)(found);
        // The changed modes may still be set: after SIGSTOP, under a shell that leaves modes alone.
        if found != changed || self.before.is_none() {
            self.before = Some(found);
            HANDLER_COPY.remember(terminal, found);
            return changed.set(terminal);
        }
        true
    }

    fn leave(&mut self) {
        HANDLER_COPY.forget();
        if let Some(before) = self.before.take()
            && in_foreground(self.terminal.as_fd())
        {
            // A terminal that is gone needs no modes.
            let _ = before.set(self.terminal.as_fd());
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
        let mut guard = held();
        if guard.is_some() {
            return None;
        }
        let held = guard.insert(Held {
            terminal: terminal.try_clone_to_owned().ok()?,
            change,
            before: None,
            continued: Arc::clone(&continued),
        });
        held.enter();
        Some(Self { continued })
    }

    /// Whether this process has the terminal now. If so, the modes are set.
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

/// Gives the modes back, because the process is about to be stopped: another process has the terminal then.
pub fn give_back() {
    if let Some(held) = held().as_mut() {
        held.leave();
    }
}

/// Sets the modes again after a stop, if this process has the terminal.
pub fn take_again() {
    if let Some(held) = held().as_mut() {
        held.enter();
        // Only a counter at its maximum refuses a write.
        let _ = held.continued.write(1);
    }
}

/// Lets the calling thread read and set a terminal in the background too. There that fails, instead of
/// stopping the process.
///
/// # Errors
/// If the kernel refuses the mask.
pub fn outlive_the_background() -> io::Result<()> {
    mask::block(&[libc::SIGTTIN, libc::SIGTTOU]).map(drop)
}

/// A copy of what has to be given back, for a signal handler, which can take no lock.
struct HandlerCopy {
    /// -1: nothing to give back.
    terminal: AtomicI32,
    modes: [AtomicU32; 4],
}

static HANDLER_COPY: HandlerCopy = HandlerCopy {
    terminal: AtomicI32::new(-1),
    modes: [const { AtomicU32::new(0) }; 4],
};

impl HandlerCopy {
    fn remember(&self, terminal: BorrowedFd<'_>, modes: Modes) {
        let bits = [
            modes.input.bits(),
            modes.output.bits(),
            modes.control.bits(),
            modes.local.bits(),
        ];
        for (copy, mode) in self.modes.iter().zip(bits) {
            copy.store(mode, Ordering::Relaxed);
        }
        self.terminal.store(terminal.as_raw_fd(), Ordering::Release);
    }

    fn forget(&self) {
        self.terminal.store(-1, Ordering::Release);
    }
}

/// Gives the modes back where nothing else can be done any more. May be called in a signal handler.
pub fn give_back_in_a_handler() {
    let terminal = HANDLER_COPY.terminal.load(Ordering::Acquire);
    if terminal < 0 {
        return;
    }
    // SAFETY: `Held` keeps the file open for as long as its number is in the copy.
    let terminal = unsafe { BorrowedFd::borrow_raw(terminal) };
    if !in_foreground(terminal) {
        return;
    }
    let [input, output, control, local] = HANDLER_COPY
        .modes
        .each_ref()
        .map(|mode| mode.load(Ordering::Relaxed));
    let modes = Modes {
        input: InputModes::from_bits_retain(input),
        output: OutputModes::from_bits_retain(output),
        control: ControlModes::from_bits_retain(control),
        local: LocalModes::from_bits_retain(local),
    };
    modes.set(terminal);
}
