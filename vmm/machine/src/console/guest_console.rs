//! The console of one guest, wherever that is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_config::ConsoleConfig;
use baton_os::listener::ListenError;
use thiserror::Error;

use super::input::TakesInput;
use super::port::ConsolePort;
use super::pty::PtyEndpoint;
use super::served::ServedConsole;
use super::socket::SocketEndpoint;
use super::thread::ConsoleThread;

/// How long the file of a console may take nothing at the end before the rest is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A console could not be set up.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// The file could not be opened.
    #[error("cannot use {} as its console: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The path of the socket is taken by a file that is not a socket.
    #[error(
        "cannot listen for its console at {}: a file that is not a socket exists there; remove it or name \
         another path",
        path.display()
    )]
    PathTaken {
        /// Path of the file.
        path: PathBuf,
    },
    /// Another guest or program listens at the path of the socket.
    #[error(
        "console path {} is in use by another guest or program: stop that, or name another path",
        path.display()
    )]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The socket could not be created.
    #[error("cannot listen for its console at {}: {source}; name another path", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The host refused a pseudo-terminal, a thread or an event.
    #[error("cannot set up its console: {0}")]
    Host(#[from] io::Error),
}

/// The console of one guest. It lives as long as the guest, and may serve another guest after that. When it is
/// dropped, what has not been written is written, unless nobody takes it for a second.
#[derive(Debug)]
pub struct GuestConsole {
    kind: Kind,
    place: Option<PathBuf>,
}

#[derive(Debug)]
enum Kind {
    /// The port of a console that guests share, or of none.
    Elsewhere(ConsolePort),
    /// `None` when it has ended.
    File(Option<ConsoleThread>),
    Served(ServedConsole),
}

impl GuestConsole {
    /// Sets up the console that `config` describes. `stdio` makes the port of a guest that shares standard
    /// output.
    ///
    /// # Errors
    /// What cannot be set up.
    pub fn open(
        config: &ConsoleConfig,
        stdio: impl FnOnce() -> ConsolePort,
    ) -> Result<Self, ConsoleError> {
        let mut place = config.path().cloned();
        let kind = match config {
            ConsoleConfig::Stdio => Kind::Elsewhere(stdio()),
            ConsoleConfig::Off => Kind::Elsewhere(ConsolePort::discard()),
            ConsoleConfig::File(path) => Kind::File(Some(ConsoleThread::spawn(open_file(path)?)?)),
            ConsoleConfig::Unix(path) => Kind::Served(ServedConsole::spawn(listen(path)?)?),
            ConsoleConfig::Pty => {
                let terminal = PtyEndpoint::open()?;
                place = Some(terminal.path().to_owned());
                Kind::Served(ServedConsole::spawn(terminal)?)
            }
        };
        Ok(Self { kind, place })
    }

    /// Where a guest prints to.
    #[must_use]
    pub fn port(&self) -> ConsolePort {
        match &self.kind {
            Kind::Elsewhere(port) => port.clone(),
            Kind::File(thread) => match thread {
                Some(thread) => thread.port(String::new()),
                None => ConsolePort::discard(),
            },
            Kind::Served(console) => console.port(),
        }
    }

    /// The file, socket or pseudo-terminal of the console.
    #[must_use]
    pub fn place(&self) -> Option<&Path> {
        self.place.as_deref()
    }

    /// Gives the input of the console to `guest`, and no longer to the guest before. A console that has no
    /// input, or whose input is standard input, does nothing.
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn connect(&self, guest: Arc<dyn TakesInput>) -> io::Result<()> {
        match &self.kind {
            Kind::Served(console) => console.connect(&guest),
            Kind::Elsewhere(_) | Kind::File(_) => Ok(()),
        }
    }

    /// Begins to write what has not been written, without waiting for it. Where several consoles end, none then
    /// waits for the reader of another.
    pub fn end(&self) {
        if let Kind::Served(console) = &self.kind {
            console.end();
        }
    }
}

impl Drop for GuestConsole {
    fn drop(&mut self) {
        if let Kind::File(thread) = &mut self.kind
            && let Some(thread) = thread.take()
        {
            thread.finish(|stuck| stuck >= PATIENCE);
        }
    }
}

/// Opens the file of a console for this user alone, to append to it.
fn open_file(path: &Path) -> Result<File, ConsoleError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // A pipe without a reader is an error instead of a wait.
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map_err(|source| ConsoleError::File {
        path: path.to_owned(),
        source,
    })
}

fn listen(path: &Path) -> Result<SocketEndpoint, ConsoleError> {
    let path = || path.to_owned();
    SocketEndpoint::open(&path()).map_err(|error| match error {
        ListenError::NoSocket => ConsoleError::PathTaken { path: path() },
        ListenError::InUse => ConsoleError::InUse { path: path() },
        ListenError::Host(source) => ConsoleError::Socket {
            path: path(),
            source,
        },
    })
}
