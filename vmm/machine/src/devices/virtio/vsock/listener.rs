//! The host's side: Unix sockets, none of which is ever waited for.
//!
//! A program of the host reaches port 52 of the guest by connecting to the device's path and saying
//! `CONNECT 52` in a line; when the guest has agreed it reads `OK` and its own port's number, and what
//! follows is the connection. The guest reaches port 52 of the host if a program listens at the
//! device's path with `_52` behind it. Firecracker does it so, and there are tools for that.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use baton_os::listener::{Access, ListenError, OwnListener};

use super::super::DeviceError;

/// Longest first line, with its end: `CONNECT 4294967295` and some room.
const MOST_LINE: usize = 32;
/// Longest path: an address has room for 107 bytes, of which a port takes up to 11.
const MOST_PATH: usize = 96;

/// Where programs of the host come in; the socket is gone when this is.
#[derive(Debug)]
pub(super) struct Listener(OwnListener);

impl Listener {
    /// Listens at `path`. A socket that nobody listens on any more makes room, nothing else does.
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        let owned = || path.to_owned();
        if path.as_os_str().len() > MOST_PATH {
            return Err(DeviceError::VsockTooLong {
                path: owned(),
                most: MOST_PATH,
            });
        }
        match OwnListener::bind(path, Access::Umask) {
            Ok(listener) => Ok(Self(listener)),
            Err(ListenError::NoSocket) => Err(DeviceError::VsockExists { path: owned() }),
            Err(ListenError::InUse) => Err(DeviceError::VsockInUse { path: owned() }),
            Err(ListenError::Host(source)) => Err(DeviceError::Vsock {
                path: owned(),
                source,
            }),
        }
    }

    /// The next program that connects; an error of kind `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let stream = self.0.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects to the program that listens for `port`, if there is one. A guest chooses the port,
    /// and so what of the directory is reached: a socket, never what a symbolic link points to.
    pub(super) fn reach(&self, port: u32) -> io::Result<UnixStream> {
        let mut name = self.0.name().to_owned();
        name.push(format!("_{port}"));
        self.0.directory().connect(&name)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A program that has connected and not yet said which port it wants.
#[derive(Debug)]
pub(super) struct Newcomer {
    stream: UnixStream,
    line: Vec<u8>,
}

/// How far a newcomer is.
pub(super) enum Said {
    /// It has not finished its line.
    Nothing,
    /// It wants to reach this port of the guest.
    Connect(u32),
    /// It has gone, or does not keep to the protocol.
    Nonsense,
}

impl Newcomer {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            line: Vec::with_capacity(MOST_LINE),
        }
    }

    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Reads what has come of its line, and nothing behind that: it is the guest's.
    pub(super) fn listen(&mut self) -> Said {
        while self.line.len() < MOST_LINE {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1..) if byte == *b"\n" => {
                    return port_of(&self.line).map_or(Said::Nonsense, Said::Connect);
                }
                Ok(1..) => self.line.extend_from_slice(&byte),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Said::Nothing,
                Ok(0) | Err(_) => return Said::Nonsense,
            }
        }
        Said::Nonsense
    }
}

/// The port that a line `CONNECT port` names.
fn port_of(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let command = words.next()?;
    let port = words.next()?.parse().ok()?;
    (command.eq_ignore_ascii_case("connect") && words.next().is_none()).then_some(port)
}
