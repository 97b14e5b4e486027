//! A directory that is kept open. Its files are reached by name, and a symbolic link under that name is not
//! followed: a user who may write to the directory cannot point this process, with its rights, at a file
//! elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

mod lock;

/// Permission of all users to write.
const OTHERS_WRITE: u32 = 0o002;
/// How many names are tried for a new file. A process that was killed may have left files under some.
const NAMES: u32 = 16;

/// Tells one file from another, whatever its name: device and number.
pub type FileId = (u64, u64);

/// An open directory.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory `path`; an empty path is the current one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlags::empty())
    }

    /// [`Self::open`], which fails if `path` itself is a symbolic link.
    pub fn open_no_link(path: &Path) -> io::Result<Self> {
        Self::open_with(path, OFlags::NOFOLLOW)
    }

    fn open_with(path: &Path, flags: OFlags) -> io::Result<Self> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// The directory of `path`, and the last part of `path`.
    pub fn of(path: &Path) -> io::Result<(Self, OsString)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let directory = Self::open(path.parent().unwrap_or(Path::new("")))?;
        Ok((directory, name.to_owned()))
    }

    /// Owner and mode of the directory.
    pub fn status(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.0)?)
    }

    /// Status of the file under `name`. A symbolic link is not followed.
    pub fn status_of(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(rustix::fs::statat(
            &self.0,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// The file under `name`, if there is one.
    pub fn id_of(&self, name: &OsStr) -> Option<FileId> {
        let found = self.status_of(name).ok()?;
        Some((found.st_dev, found.st_ino))
    }

    /// Removes the file `name`, which must not be a directory.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Sets the mode of the file `name`. For a directory to which no other user may write: a symbolic link would
    /// be followed.
    pub fn set_mode(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        Ok(rustix::fs::chmodat(&self.0, name, mode, AtFlags::empty())?)
    }

    /// The names of the files in the directory.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(path_of(&self.0))?;
        Ok(entries.flatten().map(|entry| entry.file_name()).collect())
    }

    /// Whether this process may create files in the directory.
    ///
    /// # Errors
    /// The host's reason why it may not.
    pub fn check_writable(&self) -> io::Result<()> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        Ok(rustix::fs::accessat(
            &self.0,
            ".",
            access,
            AtFlags::EACCESS,
        )?)
    }

    /// Opens the file `name`. A symbolic link is not followed.
    pub fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, mode)?.into())
    }

    /// Replaces the file `name` as a whole: a reader sees the old content or the new, never a part. The name
    /// of the file that is written meanwhile ends in `.tmp`.
    pub fn replace(&self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        let (mut file, new) = self.create(name)?;
        let done = file.write_all(content).and_then(|()| {
            Ok(rustix::fs::renameat(
                &self.0,
                new.as_os_str(),
                &self.0,
                name,
            )?)
        });
        if done.is_err() {
            // The rest of the file is of no use, and the error is reported already.
            let _ = self.remove(&new);
        }
        done
    }

    /// Creates a file that did not exist, named after `name` and this process.
    fn create(&self, name: &OsStr) -> io::Result<(File, OsString)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut attempt = 0;
        loop {
            let mut new = name.to_owned();
            new.push(format!(".{}-{attempt}.tmp", std::process::id()));
            // The permissions of any new file; the user's umask takes some away.
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::openat(&self.0, new.as_os_str(), flags | OFlags::CLOEXEC, mode) {
                Ok(file) => return Ok((file.into(), new)),
                Err(rustix::io::Errno::EXIST) if attempt + 1 < NAMES => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Connects to the program that listens at the socket `name`, at once or not at all.
    ///
    /// # Errors
    /// `PermissionDenied` if the file is not a socket, or if another user may have put it there.
    pub fn connect(&self, name: &OsStr) -> io::Result<UnixStream> {
        let (socket, status) = self.socket(name)?;
        match self.trusts(&status)? {
            true => dial(&socket),
            false => Err(ErrorKind::PermissionDenied.into()),
        }
    }

    /// Whether a program listens at the socket `name`, of whatever owner.
    ///
    /// # Errors
    /// `PermissionDenied` if the file is not a socket, or this user may not connect to it; `NotFound` if
    /// there is no such file.
    pub fn is_listened_at(&self, name: &OsStr) -> io::Result<bool> {
        match dial(&self.socket(name)?.0) {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => Ok(false),
                ErrorKind::PermissionDenied => Err(error),
                // A socket without room for another connection is in use too.
                _ => Ok(true),
            },
        }
    }

    fn socket(&self, name: &OsStr) -> io::Result<(OwnedFd, Stat)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Socket => Ok((file, status)),
            _ => Err(ErrorKind::PermissionDenied.into()),
        }
    }

    /// Whether the socket with this status can be trusted here. The owner of a directory decides which
    /// users may write to it. Where all users may, only sockets of this user, of root and of the directory's
    /// owner are trusted. A second name for a socket is that of another place.
    fn trusts(&self, socket: &Stat) -> io::Result<bool> {
        let directory = self.status()?;
        let owners = [geteuid().as_raw(), 0, directory.st_uid];
        let for_everybody = directory.st_mode & OTHERS_WRITE != 0;
        Ok(socket.st_nlink == 1 && (!for_everybody || owners.contains(&socket.st_uid)))
    }
}

/// The name under which the kernel shows an open file.
fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Connects to the socket `file`, at once or not at all: the standard library would wait where many
/// have connected and none is accepted.
fn dial(file: &OwnedFd) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path_of(file))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of a test, and its path.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("baton-directory-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a directory");
            Self(path)
        }

        fn open(&self) -> Directory {
            Directory::open(&self.0).expect("opens")
        }

        fn names(&self) -> Vec<OsString> {
            let mut names = self.open().names().expect("reads");
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kind(result: io::Result<UnixStream>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn a_socket_is_reached_by_its_own_name_and_not_by_a_link() {
        let (place, elsewhere) = (Place::new(), Place::new());
        let path = elsewhere.0.join("secret");
        let _listener = UnixListener::bind(&path).expect("listens");
        symlink(&path, place.0.join("link")).expect("a symbolic link");
        fs::write(place.0.join("file"), "").expect("a file");
        let name = OsStr::new;
        assert_eq!(kind(elsewhere.open().connect(name("secret"))), None);
        for (other, expected) in [
            ("link", ErrorKind::PermissionDenied),
            ("file", ErrorKind::PermissionDenied),
            ("none", ErrorKind::NotFound),
        ] {
            assert_eq!(kind(place.open().connect(name(other))), Some(expected));
        }
        fs::hard_link(&path, elsewhere.0.join("second")).expect("a hard link");
        assert_eq!(
            kind(elsewhere.open().connect(name("second"))),
            Some(ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn where_everybody_may_write_only_this_user_root_and_the_owner_are_trusted() {
        let place = Place::new();
        let directory = place.open();
        let us = geteuid().as_raw();
        let mut socket = directory.status().expect("a status");
        socket.st_nlink = 1;
        let mut trusts = |uid| {
            socket.st_uid = uid;
            directory.trusts(&socket).expect("a status")
        };
        let stranger = us + 1;
        assert!(trusts(stranger), "the mode lets only this user write");
        fs::set_permissions(&place.0, Permissions::from_mode(0o777)).expect("mode");
        assert!(trusts(us) && trusts(0));
        assert!(!trusts(stranger));
    }

    #[test]
    fn a_directory_is_the_one_that_was_opened_whatever_has_its_path() {
        let place = Place::new();
        let path = place.0.join("sockets");
        fs::create_dir(&path).expect("a directory");
        let directory = Directory::open(&path).expect("opens");
        fs::rename(&path, place.0.join("moved")).expect("renamed");
        symlink("/", &path).expect("a symbolic link");
        let _listener = UnixListener::bind(place.0.join("moved/one")).expect("listens");
        assert_eq!(kind(directory.connect(OsStr::new("one"))), None);
        assert!(Directory::open_no_link(&path).is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_not_through_links() {
        let (place, elsewhere) = (Place::new(), Place::new());
        let precious = elsewhere.0.join("precious");
        fs::write(&precious, "old").expect("a file");
        // A user who guesses the name of the file that is written meanwhile gains nothing.
        let guessed = format!("numbers.{}-0.tmp", std::process::id());
        for name in ["numbers", "numbers.tmp", &guessed] {
            symlink(&precious, place.0.join(name)).expect("a symbolic link");
        }
        let name = OsStr::new("numbers");
        place.open().replace(name, b"new").expect("replaced");
        assert_eq!(fs::read(&precious).expect("a file"), b"old");
        let path = place.0.join("numbers");
        assert!(fs::symlink_metadata(&path).expect("a file").is_file());
        assert_eq!(fs::read(&path).expect("a file"), b"new");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_leaves_nothing_behind() {
        let place = Place::new();
        fs::create_dir(place.0.join("numbers")).expect("a directory");
        let name = OsStr::new("numbers");
        assert!(place.open().replace(name, b"new").is_err());
        assert_eq!(place.names(), ["numbers"]);
    }
}
