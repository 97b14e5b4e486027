//! The Unix socket at which programs of the host reach the guest, and the Unix sockets of programs that the
//! guest reaches. No call waits.
//!
//! A program of the host reaches port 52 of the guest by connecting to the device's path and sending
//! `CONNECT 52` and a newline (`pending.rs`). When the guest accepts, the program reads `OK` with the number
//! of its own port; all bytes after that belong to the connection. The guest reaches port 52 of the host if a
//! program listens at the device's path followed by `_52`. Firecracker has the same protocol, and there are
//! tools for it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use baton_os::listener::{Access, ListenError, OwnListener};

use crate::devices::error::DeviceError;

/// Longest path, bytes: an address has room for 107, of which the suffix for a port takes up to 11.
const MAX_PATH: usize = 96;

/// The Unix socket at which programs of the host connect. Dropping this removes the socket's file.
#[derive(Debug)]
pub(super) struct VsockListener(OwnListener);

impl VsockListener {
    /// Listens at `path`. A socket at which no program listens is replaced; any other file is an error.
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        let owned = || path.to_owned();
        if path.as_os_str().len() > MAX_PATH {
            return Err(DeviceError::VsockPathTooLong {
                path: owned(),
                limit: MAX_PATH,
            });
        }
        match OwnListener::bind(path, Access::Umask) {
            Ok(listener) => Ok(Self(listener)),
            Err(ListenError::NoSocket) => Err(DeviceError::VsockPathTaken { path: owned() }),
            Err(ListenError::InUse) => Err(DeviceError::VsockInUse { path: owned() }),
            Err(ListenError::Host(source)) => Err(DeviceError::Vsock {
                path: owned(),
                source,
            }),
        }
    }

    /// Accepts the next program that connects. The error is of kind `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let stream = self.0.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Connects to the program of the host that listens for `port`, if there is one. The guest chooses the port,
    /// and thereby a name in the directory. Only a socket with that name is reached, never the target of a
    /// symbolic link.
    pub(super) fn connect_to_host(&self, port: u32) -> io::Result<UnixStream> {
        let mut name = self.0.name().to_owned();
        name.push(format!("_{port}"));
        self.0.directory().connect(&name)
    }
}

impl AsRawFd for VsockListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
