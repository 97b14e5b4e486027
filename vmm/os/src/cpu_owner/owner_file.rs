//! The file of a host CPU. Whoever has its lock owns the CPU.
//!
//! A file is never removed. So all processes lock the same one, and a killed process leaves a file that the
//! next owner can use.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::owner::{MAX_TEXT, Owner};
use crate::directory::Directory;

/// The file with its lock, which is released when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnerFile(File);

/// The result of an attempt to get the lock.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// This process has the lock now.
    Owned(OwnerFile),
    /// Another process has it. `None` if the file does not describe that process.
    Taken(Option<Owner>),
}

impl OwnerFile {
    /// Locks the file `name` in `directory` for `owner`, unless another process has the lock.
    ///
    /// # Errors
    /// `InvalidInput` if `name` is not a regular file with one name; otherwise the host's reason.
    pub(crate) fn lock(directory: &Directory, name: &OsStr, owner: &Owner) -> io::Result<Attempt> {
        let mut file = open(directory, name)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Taken(read(&mut file))),
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.write_all(owner.to_text().as_bytes())?;
        Ok(Attempt::Owned(Self(file)))
    }
}

impl Drop for OwnerFile {
    fn drop(&mut self) {
        // The text means nothing without the lock, and a reader should not have to find that out.
        let _ = self.0.set_len(0);
    }
}

/// Opens the file, which is created if it is missing. All users may write to it, because any may own the CPU
/// next; the directory decides who comes that far.
fn open(directory: &Directory, name: &OsStr) -> io::Result<File> {
    // A FIFO that another user put there would keep this process waiting otherwise.
    let flags = OFlags::RDWR | OFlags::NONBLOCK;
    // In two steps: in a sticky directory, Linux refuses to open the file of another user with O_CREAT.
    let all = Mode::from_raw_mode(0o666);
    let file = match directory.open_file(name, flags, Mode::empty()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            match directory.open_file(name, flags | OFlags::CREATE | OFlags::EXCL, all) {
                // The user's umask has taken permissions away.
                Ok(new) => rustix::fs::fchmod(&new, all).map(|()| new)?,
                // Another process was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    directory.open_file(name, flags, Mode::empty())?
                }
                Err(error) => return Err(error),
            }
        }
        opened => opened?,
    };
    let status = rustix::fs::fstat(&file)?;
    // A second name may be that of a file which matters to its owner, and which would be overwritten.
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile if status.st_nlink == 1 => Ok(file),
        _ => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is not a regular file with one name",
        )),
    }
}

fn read(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    Owner::parse(&text)
}
