//! `baton console`: the user's terminal attached to the console of a guest.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_os::directory::Directory;
use baton_os::output::Writer;
use baton_os::raw_terminal::{Key, RawTerminal};
use baton_os::signals::StopSignals;
use baton_os::{say, tty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

/// The letter that detaches when it is typed behind Ctrl-a, as in screen.
const LEAVE: u8 = b'd';
/// How often to check whether this process has come to the foreground.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

/// Why the terminal is no longer attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// The user has typed Ctrl-a d.
    ByUser,
    /// A signal has come.
    BySignal,
    /// The console has ended, and the guest with it.
    Ended,
    /// Standard output takes no more.
    NoReader,
}

/// The terminal could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no socket.
    #[error(
        "there is no console at {}: give the path of the socket that the guest was given by --console unix:PATH",
        .0.display()
    )]
    None(PathBuf),
    /// The guest that had the socket has ended.
    #[error("the guest with the console {} has ended", .0.display())]
    Ended(PathBuf),
    /// The file is not a socket of this user, or one that this user may use.
    #[error(
        "{} cannot be trusted: it is no socket, or may be one of another user; check its path and owner",
        .0.display()
    )]
    Denied(PathBuf),
    /// The host refused a connection, or the connection broke.
    #[error("cannot use the console {}: {source}", path.display())]
    Host {
        /// The socket.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
}

impl AttachError {
    fn of(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                ErrorKind::NotFound => Self::None(path),
                ErrorKind::ConnectionRefused => Self::Ended(path),
                ErrorKind::PermissionDenied => Self::Denied(path),
                _ => Self::Host { path, source },
            }
        }
    }
}

/// Attaches standard input and output to the console at the socket `path`, until Ctrl-a d is typed, a signal
/// comes or the console ends. A terminal is raw meanwhile, and has its modes of before afterwards.
///
/// # Errors
/// If the console cannot be used.
pub fn attach(path: &Path, signals: &StopSignals) -> Result<Detached, AttachError> {
    let connect = || {
        let (directory, name) = Directory::of(path)?;
        directory.connect(&name)
    };
    let socket = connect().map_err(AttachError::of(path))?;
    // A terminal in the background is left alone, and must not stop this process.
    let _ = tty::outlive_the_background();
    let mut attached = Attached {
        socket,
        signals,
        terminal: RawTerminal::new(io::stdin().as_fd(), LEAVE),
        has_input: true,
        typed: Vec::new(),
    };
    if attached.terminal.is_some() {
        say::line(format_args!(
            "baton: attached to {}; Ctrl-a d detaches",
            path.display()
        ));
    }
    let detached = attached.run().map_err(AttachError::of(path))?;
    // The terminal gets its modes back before anything else is printed.
    if attached.terminal.take().is_some() {
        say::line(format_args!("\nbaton: {}", detached.sentence()));
    }
    Ok(detached)
}

impl Detached {
    fn sentence(self) -> &'static str {
        match self {
            Self::ByUser | Self::BySignal => "detached; the guest goes on",
            Self::Ended => "the console has ended",
            Self::NoReader => "detached, because standard output takes no more",
        }
    }
}

struct Attached<'a> {
    socket: UnixStream,
    signals: &'a StopSignals,
    terminal: Option<RawTerminal>,
    /// Whether standard input has not come to its end.
    has_input: bool,
    /// What was typed and the console has not taken. Nothing is read meanwhile.
    typed: Vec<u8>,
}

impl Attached<'_> {
    fn run(&mut self) -> io::Result<Detached> {
        loop {
            let has_typed = self.wait()?;
            if self.signals.take() {
                return Ok(Detached::BySignal);
            }
            if let Some(terminal) = &self.terminal {
                let _ = terminal.continued().read();
            }
            if let Some(detached) = self.show()? {
                return Ok(detached);
            }
            let leaves = has_typed && self.read_keys();
            // What was typed before Ctrl-a d is the guest's.
            self.send()?;
            if leaves {
                return Ok(Detached::ByUser);
            }
        }
    }

    /// Waits until there is something to do, and returns whether standard input can be read.
    fn wait(&self) -> io::Result<bool> {
        // SAFETY: the event lives as long as the terminal.
        let event = |t: &RawTerminal| unsafe { BorrowedFd::borrow_raw(t.continued().as_raw_fd()) };
        let continued = self.terminal.as_ref().map(event);
        let stdin = io::stdin();
        let is_ours = self.terminal.as_ref().is_none_or(RawTerminal::is_ours);
        let reads = self.has_input && self.typed.is_empty() && is_ours;

        let mut to_socket = PollFlags::IN;
        to_socket.set(PollFlags::OUT, !self.typed.is_empty());
        let mut files = vec![
            PollFd::new(&self.socket, to_socket),
            PollFd::new(self.signals, PollFlags::IN),
        ];
        files.extend(continued.map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN)));
        if reads {
            files.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let timeout = Timespec::try_from(CHECK_INTERVAL).ok();
        match poll(&mut files, timeout.as_ref().filter(|_| !is_ours)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(reads && files.last().is_some_and(|last| !last.revents().is_empty()))
    }

    /// Shows what the guest has printed.
    fn show(&mut self) -> io::Result<Option<Detached>> {
        let mut buffer = [0; 4096];
        let length = match self.socket.read(&mut buffer) {
            Ok(0) => return Ok(Some(Detached::Ended)),
            Ok(length) => length,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
                    ErrorKind::ConnectionReset => Ok(Some(Detached::Ended)),
                    _ => Err(error),
                };
            }
        };
        let stdout = io::stdout();
        let mut writer = Writer::new(stdout.as_fd());
        writer.give_up = Some(self.signals.as_fd());
        match writer.write(&buffer[..length], |_| {}) {
            Ok(()) => Ok(None),
            // The signal is taken in the next round.
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
            Err(_) => Ok(Some(Detached::NoReader)),
        }
    }

    /// Reads from standard input. Returns whether the user wants to leave.
    fn read_keys(&mut self) -> bool {
        let mut buffer = [0; 64];
        let read = match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) => {
                self.end_input();
                return false;
            }
            Ok(read) => read,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return false,
            Err(_) => {
                // A terminal that has just gone to the background can be read later.
                if self.terminal.as_ref().is_none_or(RawTerminal::is_ours) {
                    self.end_input();
                }
                return false;
            }
        };
        for &byte in &buffer[..read] {
            let key = self.terminal.as_mut();
            match key.map_or(Key::Guest(byte), |terminal| terminal.press(byte)) {
                Key::Guest(byte) => self.typed.push(byte),
                Key::Leave => return true,
                Key::None => {}
            }
        }
        false
    }

    fn end_input(&mut self) {
        self.has_input = false;
        // A console that has ended shows that by its output.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Sends what was typed, as far as there is room.
    fn send(&mut self) -> io::Result<()> {
        while !self.typed.is_empty() {
            match self.socket.write(&self.typed) {
                Ok(sent) => drop(self.typed.drain(..sent)),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(()),
                    // A console that has ended may have left output, which is still shown.
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                        self.typed.clear();
                        self.has_input = false;
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}
