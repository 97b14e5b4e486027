//! Opens a disk so that no other guest or program writes it at the same time, or, if this guest writes it,
//! also reads it.
//!
//! There are three ways by which programs lock a disk. All three are checked and used:
//! - the kernel's exclusive use of a block device: mounted file systems, swap, device mapper and RAID have
//!   it, and `O_EXCL` requests it. Only a writer needs it, because readers cannot share it.
//! - QEMU's locks on single bytes: a lock on byte 100 + n means "this program does n", one on byte 200 + n
//!   "no other program may do n" (QEMU, block/file-posix.c, include/block/block-common.h). Cloud Hypervisor
//!   locks the whole file with the same kind of lock.
//! - `flock`, which util-linux and earlier versions of this program use.

use std::fs::{File, OpenOptions, TryLockError, metadata};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::devices::error::DeviceError;

/// Byte of the lock "this program does operation 0".
const DOES: libc::off_t = 100;
/// Byte of the lock "no other program may do operation 0".
const FORBIDS: libc::off_t = 200;
/// QEMU's numbers of operations: reads that see a consistent image, writes, and changes of the image's size.
const READ: libc::off_t = 0;
const WRITE: libc::off_t = 1;
const RESIZE: libc::off_t = 3;
/// The operations that a guest's disk does not allow to other programs: QEMU's `share-rw=off`, its default.
const FORBIDDEN: [libc::off_t; 2] = [WRITE, RESIZE];

/// Opens and locks the disk at `path` for one guest.
///
/// # Errors
/// If there is no such file, it is not a disk, or another guest or program uses it.
pub(super) fn open(path: &Path, read_only: bool) -> Result<File, DeviceError> {
    let failed = |source| DeviceError::Disk {
        path: path.to_owned(),
        source,
    };
    // Checked before the file is opened: `open` of a pipe would wait for its other end.
    let kind = metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DeviceError::NotADisk {
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
            Some(libc::EBUSY) if exclusive => DeviceError::BlockDeviceBusy {
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

/// Takes QEMU's locks. Returns false if another program does what these locks forbid, or forbids what this
/// guest does.
fn lock_bytes(file: &File, read_only: bool) -> io::Result<bool> {
    let does: &[libc::off_t] = match read_only {
        true => &[READ],
        false => &[READ, WRITE],
    };
    // First lock, then check. Of two programs that do so at the same time, at least one finds the locks of
    // the other.
    let done = does.iter().map(|operation| DOES + operation);
    for byte in done.chain(FORBIDDEN.map(|operation| FORBIDS + operation)) {
        match lock_byte(file, byte) {
            Ok(()) => {}
            Err(error) if is_locked(&error) => return Ok(false),
            // The file system has no such locks, so no program has one.
            Err(error) if is_unsupported(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    let forbidden = does.iter().map(|operation| FORBIDS + operation);
    for byte in forbidden.chain(FORBIDDEN.map(|operation| DOES + operation)) {
        if has_other_lock(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_locked(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// A lock on one byte. It belongs to the open file description, and ends with it.
fn byte_lock(kind: i32, byte: libc::off_t) -> libc::flock {
    // SAFETY: the struct has only integers, for which all zeroes is valid. `l_pid` of an OFD lock must be 0.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

/// Locks one byte for reading, as QEMU does: such locks do not exclude each other.
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
    // SAFETY: the file is open, and the lock lives through the call, which writes its result there.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes `flock`'s lock on the whole file. Returns false if another program has it.
fn flock(file: &File, read_only: bool) -> io::Result<bool> {
    // On such file systems `flock` is implemented by byte locks, which would conflict with QEMU's.
    if is_on_network(file)? {
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
fn is_on_network(file: &File) -> io::Result<bool> {
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

    /// A file of one sector, which is removed when this is dropped.
    struct ImageFile(std::path::PathBuf);

    impl ImageFile {
        fn new(name: &str) -> Self {
            let name = format!("baton-disk-lock-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, [0; 512]).expect("a file");
            Self(path)
        }

        /// The file as another program has opened it, with these bytes locked.
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

    impl Drop for ImageFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn an_image_that_qemu_writes_is_in_use_and_one_that_it_reads_has_readers() {
        let image = ImageFile::new("qemu");
        let writer = image.locked_at(&[100, 101, 201, 203]);
        assert!(!image.is_free(false) && !image.is_free(true));
        drop(writer);
        let reader = image.locked_at(&[100, 201, 203]);
        assert!(!image.is_free(false) && image.is_free(true));
        drop(reader);
        assert!(image.is_free(false) && image.is_free(true));
        // A QEMU that shares its writes with other programs does not share them with a reader of ours.
        let sharing = image.locked_at(&[100, 101, 203]);
        assert!(!image.is_free(false) && !image.is_free(true));
        drop(sharing);
    }

    #[test]
    fn an_image_that_is_locked_as_a_whole_is_in_use() {
        let image = ImageFile::new("whole");
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
    fn other_programs_see_what_a_guest_does_with_its_image_and_what_it_forbids() {
        let image = ImageFile::new("ours");
        let other = File::open(&image.0).expect("opens");
        for (read_only, locked) in [
            (false, &[100, 101, 201, 203][..]),
            (true, &[100, 201, 203][..]),
        ] {
            let disk = open(&image.0, read_only).expect("free");
            let bytes = (100..105).chain(200..205);
            let seen: Vec<_> = bytes
                .filter(|byte| has_other_lock(&other, *byte).expect("a result"))
                .collect();
            assert_eq!(seen, locked);
            drop(disk);
        }
        assert!((0..300).all(|byte| !has_other_lock(&other, byte).expect("a result")));
    }

    #[test]
    fn neither_a_directory_nor_a_character_device_is_a_disk() {
        for path in ["/", "/dev/null", "/dev/zero"] {
            let error = open(Path::new(path), false).expect_err("not a disk");
            assert!(
                matches!(error, DeviceError::NotADisk { .. }),
                "{path}: {error}"
            );
        }
    }
}
