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
pub enum ListenError {
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
pub enum Access {
    /// Whom the user's umask lets.
    Umask,
    /// This user alone, whatever the umask.
    OwnerOnly,
}

/// A socket on which this process listens. Its file goes with it. Nobody is waited for but, at the start
/// and the end, another process that puts a socket at the same path or removes one just then.
#[derive(Debug)]
pub struct OwnListener {
    socket: UnixListener,
    directory: Directory,
    name: OsString,
    /// Another file that took the place of ours is not ours to remove.
    file: Option<FileId>,
}

impl OwnListener {
    /// Listens at `path`. A socket that nobody listens on any more makes room, nothing else does.
    pub fn bind(path: &Path, access: Access) -> Result<Self, ListenError> {
        let (directory, name) = Directory::of(path)?;
        // Of two processes that find a socket of before here, one takes its place; the other must not
        // take that one's, which is not listened at yet for a moment.
        let lock = directory.lock(&name)?;
        make_room(&directory, &name)?;
        let socket = bound(path, access)?;
        let file = directory.id_of(&name);
        drop(lock);
        let own = Self {
            socket,
            directory,
            name,
            file,
        };
        // By its path the socket was put where the directory was at that moment.
        match own.file.is_some() && own.file == id_at(path) {
            true => Ok(own),
            false => Err(io::Error::other("its directory was moved meanwhile").into()),
        }
    }

    /// The next program that connects; an error of kind `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept()?.0)
    }

    /// Where its file is.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The name of its file there.
    pub fn name(&self) -> &OsStr {
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
        // What cannot be locked stays: the next one to listen there removes it.
        let Ok(_lock) = self.directory.lock(&self.name) else {
            return;
        };
        if self.file.is_some() && self.file == self.directory.id_of(&self.name) {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// A socket at `path` that is listened at. It is left there if that fails: the next one removes it.
fn bound(path: &Path, access: Access) -> io::Result<UnixListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if access == Access::OwnerOnly {
        // Before there is a file: it gets the mode of the socket. Changed by its path afterwards it
        // could be another file by then.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The file at `path`, be it a symbolic link.
fn id_at(path: &Path) -> Option<FileId> {
    let status = rustix::fs::lstat(path).ok()?;
    Some((status.st_dev, status.st_ino))
}

/// Removes the socket `name` of `directory` if nobody listens at it; whose lock this process holds.
pub fn remove_stale(directory: &Directory, name: &OsStr) -> Result<(), ListenError> {
    match directory.is_listened_at(name) {
        Ok(true) => Err(ListenError::InUse),
        Ok(false) => Ok(directory.remove(name)?),
        Err(error) => Err(ListenError::Host(error)),
    }
}

fn make_room(directory: &Directory, name: &OsStr) -> Result<(), ListenError> {
    match directory.status_of(name) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
            Err(ListenError::NoSocket)
        }
        Ok(_) => remove_stale(directory, name),
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
    fn of_two_that_find_a_socket_of_before_one_listens_and_can_be_reached() {
        let path = path("stale");
        for round in 0..300 {
            let _ = fs::remove_file(&path);
            drop(UnixListener::bind(&path).expect("a socket that is left over"));
            let start = std::sync::Barrier::new(4);
            let all: Vec<_> = std::thread::scope(|scope| {
                let threads: [_; 4] = std::array::from_fn(|_| {
                    scope.spawn(|| {
                        start.wait();
                        OwnListener::bind(&path, Access::Umask)
                    })
                });
                threads
                    .map(|thread| thread.join().expect("no panic"))
                    .into()
            });
            let ours: Vec<_> = all.iter().flatten().collect();
            assert_eq!(ours.len(), 1, "round {round}: {all:?}");
            let others = all.iter().filter_map(|one| one.as_ref().err());
            for refused in others {
                assert!(matches!(refused, ListenError::InUse), "{refused:?}");
            }
            let _client = UnixStream::connect(&path).expect("somebody listens");
            ours[0]
                .accept()
                .expect("the client has come to the one that runs");
        }
        assert!(!path.exists());
    }

    #[test]
    fn what_took_the_place_of_our_socket_stays_when_we_go() {
        let path = path("taken");
        let first = OwnListener::bind(&path, Access::Umask).expect("listens");
        fs::remove_file(&path).expect("removed");
        let second = OwnListener::bind(&path, Access::Umask).expect("listens");
        drop(first);
        UnixStream::connect(&path).expect("the second can still be reached");
        drop(second);
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
