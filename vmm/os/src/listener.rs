//! A listening Unix socket, and the file by which programs find it.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::directory::{Directory, FileId};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why this process cannot listen at a path.
#[derive(Debug)]
pub enum ListenError {
    /// The file at the path is not a socket.
    NoSocket,
    /// Another program listens there.
    InUse,
    /// The host refused.
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

/// Which users may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those that the user's umask permits.
    Umask,
    /// This user alone, whatever the umask.
    OwnerOnly,
    /// All users, whatever the umask: the program checks who has connected. Only for a directory to which no
    /// other user may write.
    Everybody,
}

/// A socket on which this process listens. Its file is removed with it. The only waits are, at the start and
/// the end, for another process that puts a socket at the same path or removes one just then.
#[derive(Debug)]
pub struct OwnListener {
    socket: UnixListener,
    directory: Directory,
    name: OsString,
    /// The socket's file. Another file that took its place is not removed.
    file: Option<FileId>,
}

impl OwnListener {
    /// Listens at `path`. A socket on which no program listens any more is replaced, no other file is.
    ///
    /// # Errors
    /// Why this process cannot listen there.
    pub fn bind(path: &Path, access: Access) -> Result<Self, ListenError> {
        Self::bind_kind(path, access, SocketType::STREAM)
    }

    /// [`Self::bind`] for connections that keep the bounds of messages (`SOCK_SEQPACKET`). What
    /// [`Self::accept`] returns is such a connection.
    ///
    /// # Errors
    /// Why this process cannot listen there.
    pub fn bind_packets(path: &Path, access: Access) -> Result<Self, ListenError> {
        Self::bind_kind(path, access, SocketType::SEQPACKET)
    }

    fn bind_kind(path: &Path, access: Access, kind: SocketType) -> Result<Self, ListenError> {
        let (directory, name) = Directory::of(path)?;
        // Of two processes that find an old socket here, one replaces it. The other must not replace the new
        // one in turn, on which no program listens yet for a moment.
        let lock = directory.lock(&name)?;
        make_room(&directory, &name)?;
        let socket = bound(path, access, kind)?;
        let file = directory.id_of(&name);
        if access == Access::Everybody {
            // The umask has taken rights away when the file was created.
            directory.set_mode(&name, Mode::from_raw_mode(0o666))?;
        }
        drop(lock);
        let own = Self {
            socket,
            directory,
            name,
            file,
        };
        // The socket was bound by its path, so it is where the directory was at that moment.
        match own.file.is_some() && own.file == id_at(path) {
            true => Ok(own),
            false => Err(io::Error::other("its directory was moved meanwhile").into()),
        }
    }

    /// The next program that connects.
    ///
    /// # Errors
    /// One of kind `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept()?.0)
    }

    /// The socket itself, for an event loop of another crate. Its file is there as long as `self` is.
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn socket(&self) -> io::Result<UnixListener> {
        self.socket.try_clone()
    }

    /// The directory of the socket's file.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The name of the socket's file.
    pub fn name(&self) -> &OsStr {
        &self.name
    }
}

impl AsRawFd for OwnListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for OwnListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for OwnListener {
    fn drop(&mut self) {
        // Without the lock the file stays: the next program that listens there replaces it.
        let Ok(_lock) = self.directory.lock(&self.name) else {
            return;
        };
        if self.file.is_some() && self.file == self.directory.id_of(&self.name) {
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// Binds a socket to `path` and listens. If that fails, its file stays: the next program replaces it.
fn bound(path: &Path, access: Access, kind: SocketType) -> io::Result<UnixListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    if access == Access::OwnerOnly {
        // Before there is a file, which gets the mode of the socket. Afterwards the path could be that of
        // another file.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The file at `path`. A symbolic link is not followed.
fn id_at(path: &Path) -> Option<FileId> {
    let status = rustix::fs::lstat(path).ok()?;
    Some((status.st_dev, status.st_ino))
}

/// Removes the socket `name` of `directory` if no program listens on it. This process holds the name's lock.
///
/// # Errors
/// If a program listens, or the host refuses.
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
    fn a_socket_for_everybody_has_that_mode_whatever_the_umask_and_takes_packets() {
        let path = path("everybody");
        let listener = OwnListener::bind_packets(&path, Access::Everybody).expect("listens");
        let status = fs::symlink_metadata(&path).expect("a file");
        assert_eq!(status.mode() & 0o777, 0o666);
        let again = OwnListener::bind_packets(&path, Access::Everybody);
        assert!(matches!(again, Err(ListenError::InUse)), "{again:?}");
        assert!(UnixStream::connect(&path).is_err(), "it is for packets");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn of_several_that_find_an_old_socket_one_listens_and_can_be_reached() {
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
            let _client = UnixStream::connect(&path).expect("a program listens");
            ours[0]
                .accept()
                .expect("the client has come to the one that runs");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_replaced_the_socket_stays_when_the_listener_ends() {
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
