//! A lock on a name in a directory, between processes: the process that holds the lock may check which file
//! has the name and then put another one in its place. The lock is a file `.NAME.baton-lock` that exists no
//! longer than the lock is held.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Directory, FileId};

/// Longest wait for the lock. It is held for a few system calls; a process that holds it for longer is
/// stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// A name that this process has for itself until this is dropped.
#[derive(Debug)]
pub struct NameLock<'a> {
    directory: &'a Directory,
    name: OsString,
    file: OwnedFd,
}

impl Directory {
    /// Waits until no other process has the lock of `name`.
    ///
    /// # Errors
    /// One of kind `TimedOut` if another process has the lock for long, or the host's reason.
    pub fn lock(&self, name: &OsStr) -> io::Result<NameLock<'_>> {
        let mut lock = OsString::from(".");
        lock.push(name);
        lock.push(".baton-lock");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(file) = self.try_lock(&lock)? {
                return Ok(NameLock {
                    directory: self,
                    name: lock,
                    file,
                });
            }
            if Instant::now() >= until {
                let held = format!(
                    "another process has held the lock {} for too long",
                    lock.display()
                );
                return Err(io::Error::new(ErrorKind::TimedOut, held));
            }
            thread::sleep(PAUSE);
        }
    }

    /// The lock's file, if no other process has the lock.
    fn try_lock(&self, lock: &OsStr) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, lock, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // The process that had the lock before may have removed the file, and this lock is on no name then.
        let still_there = self.id_of(lock) == Some(id(&file)?);
        Ok(still_there.then_some(file))
    }
}

fn id(file: &OwnedFd) -> io::Result<FileId> {
    let status = rustix::fs::fstat(file)?;
    Ok((status.st_dev, status.st_ino))
}

impl Drop for NameLock<'_> {
    fn drop(&mut self) {
        // A file with content is not a lock of this program.
        let empty = rustix::fs::fstat(&self.file).is_ok_and(|status| status.st_size == 0);
        if empty {
            let _ = self.directory.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_has_a_name_and_nothing_is_left() {
        let name = format!("baton-lock-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        let taken = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let directory = Directory::open(&path).expect("opens");
                    for _ in 0..200 {
                        let lock = directory.lock(OsStr::new("a.sock")).expect("locked");
                        assert!(!taken.swap(true, Ordering::AcqRel));
                        taken.store(false, Ordering::Release);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&path).expect("reads").count(), 0);
        // A file of the user's under that name is not removed.
        let notes = path.join(".a.sock.baton-lock");
        fs::write(&notes, "notes").expect("a file");
        let directory = Directory::open(&path).expect("opens");
        drop(directory.lock(OsStr::new("a.sock")).expect("locked"));
        assert_eq!(fs::read(&notes).expect("still there"), b"notes");
        fs::remove_dir_all(&path).expect("removed");
    }
}
