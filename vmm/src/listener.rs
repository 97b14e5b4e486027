//! A listening Unix socket, and the file by which programs find it.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::directory::{Directory, FileId};

/// How many may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why nobody can listen at a path.
#[derive(Debug)]
pub(crate) enum ListenError {
    /// There is something that is no socket.
    NoSocket,
    /// Somebody listens there.
    InUse,
    /// The host refuses.
    Host(io::Error),
}

impl From<io::Error> for ListenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::AddrInUse => Self::InUse,
            _ => Self::Host(error),
        }
    }
}

impl From<ListenError> for io::Error {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::NoSocket => Self::other("there is a file that is no socket"),
            ListenError::InUse => Self::from_raw_os_error(libc::EADDRINUSE),
            ListenError::Host(error) => error,
        }
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whom the user's umask lets.
    Umask,
    /// This user alone, whatever the umask.
    OwnerOnly,
}

/// A socket on which this process listens. None of its calls waits. Its file goes with it.
#[derive(Debug)]
pub(crate) struct OwnListener {
    socket: UnixListener,
    directory: Directory,
    name: OsString,
    /// Another file that took the place of ours is not ours to remove.
    file: Option<FileId>,
}

impl OwnListener {
    /// Listens at `path`. A socket that nobody listens on any more makes room, nothing else does.
    pub(crate) fn bind(path: &Path, access: Access) -> Result<Self, ListenError> {
        let (directory, name) = Directory::of(path)?;
        make_room(&directory, &name)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)?;
        if access == Access::OwnerOnly {
            // Before there is a file: it gets the mode of the socket. Changed by its path
            // afterwards it could be another file by then.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
        }
        let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
        rustix::net::bind(&socket, &address).map_err(io::Error::from)?;
        rustix::net::listen(&socket, BACKLOG).map_err(io::Error::from)?;
        Ok(Self {
            socket: socket.into(),
            file: directory.id_of(&name),
            directory,
            name,
        })
    }

    /// The next program that connects; an error of kind `WouldBlock` if there is none.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept()?.0)
    }

    /// Where its file is.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The name of its file there.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }
}

impl AsRawFd for OwnListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for OwnListener {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == self.directory.id_of(&self.name) {
            let _ = self.directory.remove(&self.name);
        }
    }
}

fn make_room(directory: &Directory, name: &OsStr) -> Result<(), ListenError> {
    match directory.status_of(name) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
            Err(ListenError::NoSocket)
        }
        Ok(_) => match directory.probe(name) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Ok(directory.remove(name)?)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(ListenError::Host(error))
            }
            // One that has no room for another connection is in use too.
            _ => Err(ListenError::InUse),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn path(name: &str) -> PathBuf {
        let name = format!("baton-listener-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn a_socket_for_its_owner_alone_has_that_mode() {
        let path = path("mode");
        let listener = OwnListener::bind(&path, Access::OwnerOnly).expect("listens");
        let status = fs::symlink_metadata(&path).expect("a file");
        assert_eq!(status.mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays_as_it_is() {
        let (notes, link) = (path("notes"), path("link"));
        fs::write(&notes, "notes").expect("a file");
        symlink(&notes, &link).expect("a symbolic link");
        for path in [&notes, &link] {
            let refused = OwnListener::bind(path, Access::Umask);
            assert!(matches!(refused, Err(ListenError::NoSocket)), "{refused:?}");
        }
        assert_eq!(fs::read(&notes).expect("a file"), b"notes");
        for path in [notes, link] {
            fs::remove_file(path).expect("still there");
        }
    }
}
