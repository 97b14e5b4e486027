//! Opens a disk so that nobody else uses it at the same time: no other guest or program writes it, and if
//! this guest does, nobody else reads it.
//!
//! There are three ways by which others say that they use a file, and each is heard and taken:
//! - the kernel's own claim on a block device: mounted file systems, swap, device mapper and RAID have it,
//!   and `O_EXCL` takes it. Only who writes needs it; it has no form for several readers.
//! - QEMU's locks on single bytes: a lock on byte 100 + n says "I do this", one on 200 + n "nobody else
//!   may" (QEMU, block/file-posix.c, include/block/block-common.h). Cloud Hypervisor locks the whole file
//!   with the same kind of lock.
//! - `flock`, as util-linux and earlier versions of this program do.

use std::fs::{File, OpenOptions, TryLockError, metadata};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::devices::DeviceError;

/// Byte of "I do this".
const DOES: libc::off_t = 100;
/// Byte of "nobody else may do this".
const FORBIDS: libc::off_t = 200;
/// QEMU's numbers of what may be done: reads that see a consistent image, writes, and changes of its size.
const READ: libc::off_t = 0;
const WRITE: libc::off_t = 1;
const RESIZE: libc::off_t = 3;
/// What no disk of a guest allows others: QEMU's `share-rw=off`, its default.
const FORBIDDEN: [libc::off_t; 2] = [WRITE, RESIZE];

/// Opens the disk at `path` for one guest.
///
/// # Errors
/// If there is none, it is no disk, or somebody else uses it.
pub(super) fn open(path: &Path, read_only: bool) -> Result<File, DeviceError> {
    let failed = |source| DeviceError::Disk {
        path: path.to_owned(),
        source,
    };
    // Before it is opened: a pipe would wait there for its other end.
    let kind = metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DeviceError::NoDisk {
            path: path.to_owned(),
        });
    }
    let exclusive = kind.is_block_device() && !read_only;
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(if exclusive { libc::O_EXCL } else { 0 })
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) if exclusive => DeviceError::DiskClaimed {
                path: path.to_owned(),
            },
            _ => failed(source),
        })?;
    let free =
        lock_bytes(&file, read_only).map_err(failed)? && flock(&file, read_only).map_err(failed)?;
    match free {
        true => Ok(file),
        false => Err(DeviceError::DiskInUse {
            path: path.to_owned(),
        }),
    }
}

/// Takes QEMU's locks. False: somebody does what this forbids, or forbids what this does.
fn lock_bytes(file: &File, read_only: bool) -> io::Result<bool> {
    let does: &[libc::off_t] = match read_only {
        true => &[READ],
        false => &[READ, WRITE],
    };
    // First say it, then look: of two who come at once one sees the other, or both do.
    let said = does.iter().map(|what| DOES + what);
    for byte in said.chain(FORBIDDEN.map(|what| FORBIDS + what)) {
        match lock_byte(file, byte) {
            Ok(()) => {}
            Err(error) if is_locked(&error) => return Ok(false),
            // A file system without such locks: then nobody can have one.
            Err(error) if is_unknown(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    let forbidden = does.iter().map(|what| FORBIDS + what);
    for byte in forbidden.chain(FORBIDDEN.map(|what| DOES + what)) {
        if has_other_lock(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_locked(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// A lock on one byte; it belongs to the open file, and ends with that.
fn byte_lock(kind: i32, byte: libc::off_t) -> libc::flock {
    // SAFETY: integers only, for which all zeroes is a value; an OFD lock must have no process.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

/// Locks one byte as all do, for reading: such locks do not exclude each other.
fn lock_byte(file: &File, byte: libc::off_t) -> io::Result<()> {
    let lock = byte_lock(libc::F_RDLCK, byte);
    // SAFETY: the file is open, and the lock lives through the call, which only reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether another open file has a lock on this byte.
fn has_other_lock(file: &File, byte: libc::off_t) -> io::Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    // SAFETY: the file is open, and the lock lives through the call, which writes the answer there.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes `flock`'s lock on the whole file. False: another has it.
fn flock(file: &File, read_only: bool) -> io::Result<bool> {
    // There it is made of locks on bytes, and would meet those of above.
    if is_remote(file)? {
        return Ok(true);
    }
    let locked = match read_only {
        true => file.try_lock_shared(),
        false => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the file is on NFS or SMB.
fn is_remote(file: &File) -> io::Result<bool> {
    const NFS: i64 = 0x6969;
    const SMB: i64 = 0x517b;
    const SMB2: i64 = 0xfe53_4d42;
    const CIFS: i64 = 0xff53_4d42;
    let kind = rustix::fs::fstatfs(file)?.f_type as i64 & 0xffff_ffff;
    Ok(matches!(kind, NFS | SMB | SMB2 | CIFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one sector that is gone when dropped.
    struct Image(std::path::PathBuf);

    impl Image {
        fn new(name: &str) -> Self {
            let name = format!("baton-claim-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, [0; 512]).expect("a file");
            Self(path)
        }

        /// Opened by somebody else who has locked these bytes.
        fn locked_at(&self, bytes: &[libc::off_t]) -> File {
            let file = File::open(&self.0).expect("opens");
            for byte in bytes {
                lock_byte(&file, *byte).expect("a lock");
            }
            file
        }

        fn is_free(&self, read_only: bool) -> bool {
            match open(&self.0, read_only) {
                Ok(_) => true,
                Err(DeviceError::DiskInUse { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn an_image_that_qemu_writes_is_in_use_and_one_that_it_reads_has_readers() {
        let image = Image::new("qemu");
        let writer = image.locked_at(&[100, 101, 201, 203]);
        assert!(!image.is_free(false) && !image.is_free(true));
        drop(writer);
        let reader = image.locked_at(&[100, 201, 203]);
        assert!(!image.is_free(false) && image.is_free(true));
        drop(reader);
        assert!(image.is_free(false) && image.is_free(true));
        // A QEMU that shares its writes with others may have them, but no reader of ours.
        let sharing = image.locked_at(&[100, 101, 203]);
        assert!(!image.is_free(false) && !image.is_free(true));
        drop(sharing);
    }

    #[test]
    fn an_image_that_is_locked_as_a_whole_is_in_use() {
        let image = Image::new("whole");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&image.0)
            .expect("opens");
        let mut lock = byte_lock(libc::F_WRLCK, 0);
        lock.l_len = 0;
        // SAFETY: the file is open, and the lock lives through the call.
        let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(locked, 0);
        assert!(!image.is_free(false) && !image.is_free(true));
    }

    #[test]
    fn others_see_what_a_guest_does_with_its_image_and_what_it_forbids() {
        let image = Image::new("ours");
        let other = File::open(&image.0).expect("opens");
        for (read_only, locked) in [
            (false, &[100, 101, 201, 203][..]),
            (true, &[100, 201, 203][..]),
        ] {
            let disk = open(&image.0, read_only).expect("free");
            let bytes = (100..105).chain(200..205);
            let seen: Vec<_> = bytes
                .filter(|byte| has_other_lock(&other, *byte).expect("an answer"))
                .collect();
            assert_eq!(seen, locked);
            drop(disk);
        }
        assert!((0..300).all(|byte| !has_other_lock(&other, byte).expect("an answer")));
    }

    #[test]
    fn what_is_neither_a_file_nor_a_block_device_is_no_disk() {
        for path in ["/", "/dev/null", "/dev/zero"] {
            let error = open(Path::new(path), false).expect_err("no disk");
            assert!(
                matches!(error, DeviceError::NoDisk { .. }),
                "{path}: {error}"
            );
        }
    }
}
