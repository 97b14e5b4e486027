//! The host's side: Unix sockets, none of which is ever waited for.
//!
//! A program of the host reaches port 52 of the guest by connecting to the device's path and saying
//! `CONNECT 52` in a line; when the guest has agreed it reads `OK` and its own port's number, and what
//! follows is the connection. The guest reaches port 52 of the host if a program listens at the
//! device's path with `_52` behind it. Firecracker does it so, and there are tools for that.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::super::DeviceError;

/// Longest first line, with its end: `CONNECT 4294967295` and some room.
const MOST_LINE: usize = 32;
/// Longest path: an address has room for 107 bytes, of which a port takes up to 11.
const MOST_PATH: usize = 96;

/// Where programs of the host come in; the socket is gone when this is.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// The file: device and number. Another that took its place is not ours to remove.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path`. A socket that nobody listens on any more makes room, nothing else does.
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        let owned = || path.to_owned();
        let failed = |source| DeviceError::Vsock {
            path: owned(),
            source,
        };
        if path.as_os_str().len() > MOST_PATH {
            return Err(DeviceError::VsockTooLong {
                path: owned(),
                most: MOST_PATH,
            });
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(DeviceError::VsockExists { path: owned() });
            }
            Ok(_) => match dial(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(failed(error));
                }
                // One that has no room for another connection is in use too.
                _ => return Err(DeviceError::VsockInUse { path: owned() }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixListener::bind(path).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => DeviceError::VsockInUse { path: owned() },
            _ => failed(error),
        })?;
        let listener = Self {
            socket,
            path: owned(),
            file: file_at(path),
        };
        listener.socket.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// The next program that connects; an error of kind `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects to the program that listens for `port`, if there is one.
    pub(super) fn reach(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        dial(Path::new(&path))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == file_at(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Connects to `path`, at once or not at all: the standard library would wait where many have
/// connected and none is accepted.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
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
