//! Puts an initial RAM disk into guest memory.
//!
//! Only a regular file says beforehand how long it is: a pipe, a block device and the files of `/proc` say
//! 0. Those are read to their end, or to the byte that no longer fits.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{ELF_INITRD_MAX, Loaded};
use crate::machine::memory::MMIO_HOLE_START;

const PAGE: u64 = 4096;

/// A RAM disk that could not be loaded.
#[derive(Debug, Error)]
pub enum InitrdError {
    /// The file cannot be read.
    #[error("cannot read the initial RAM disk {path}: {source}", path = .path.display())]
    Read {
        /// Path as given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error(
        "the initial RAM disk {path} is empty: give another one, or leave it out; what comes from a pipe can \
         be read only once, by one guest", path = .path.display()
    )]
    Empty {
        /// Path as given.
        path: PathBuf,
    },
    /// It does not fit between the kernel and the end of low memory.
    #[error(
        "the initial RAM disk {path} has {size} bytes, which do not fit beside the kernel: give \
         the guest more memory", path = .path.display()
    )]
    DoesNotFit {
        /// Path as given.
        path: PathBuf,
        /// Its size, bytes.
        size: u64,
    },
    /// It goes on behind the last byte that fits; nobody knows how far.
    #[error(
        "the initial RAM disk {path} has more than the {most} bytes that fit beside the kernel: give \
         the guest more memory", path = .path.display()
    )]
    TooLong {
        /// Path as given.
        path: PathBuf,
        /// Bytes that fit.
        most: u64,
    },
}

/// Where a RAM disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Loads the RAM disk at `path` as high as `kernel` can reach it, above the kernel.
///
/// # Errors
/// If it cannot be read, is empty or there is no room.
pub fn load_initrd(
    path: &Path,
    kernel: &Loaded,
    memory: &GuestMemoryMmap,
    memory_size: u64,
) -> Result<Initrd, InitrdError> {
    let cannot = |source| InitrdError::Read {
        path: path.to_owned(),
        source,
    };
    let reach = kernel.header.map_or(u64::from(ELF_INITRD_MAX), |header| {
        header.initrd_addr_max.into()
    });
    let room = Room {
        start: kernel.end,
        end: memory_size
            .min(MMIO_HOLE_START)
            .min(reach.saturating_add(1)),
    };
    let mut file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let said = if metadata.is_file() {
        metadata.len()
    } else {
        0
    };
    if said > 0 {
        let (address, length) = room
            .for_bytes(said)
            .ok_or_else(|| InitrdError::DoesNotFit {
                path: path.to_owned(),
                size: said,
            })?;
        memory
            .read_exact_volatile_from(GuestAddress(address), &mut file, length)
            .map_err(|error| cannot(io::Error::other(error)))?;
        return Ok(Initrd {
            address,
            size: said,
        });
    }
    let most = room.bytes();
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    let size = bytes.len() as u64;
    if size == 0 {
        return Err(InitrdError::Empty {
            path: path.to_owned(),
        });
    }
    let (address, _) = room.for_bytes(size).ok_or_else(|| InitrdError::TooLong {
        path: path.to_owned(),
        most,
    })?;
    memory
        .write_slice(&bytes, GuestAddress(address))
        .map_err(|error| cannot(io::Error::other(error)))?;
    Ok(Initrd { address, size })
}

/// Where a RAM disk may lie: between the end of the kernel and the last address that both memory and
/// kernel reach.
#[derive(Clone, Copy, Debug)]
struct Room {
    start: u64,
    end: u64,
}

impl Room {
    /// The highest whole page from which so many bytes fit, and their number as a length in memory.
    fn for_bytes(self, size: u64) -> Option<(u64, usize)> {
        let address = self.end.checked_sub(size)? & !(PAGE - 1);
        let length = usize::try_from(size).ok()?;
        (address >= self.start).then_some((address, length))
    }

    /// Bytes that fit.
    fn bytes(self) -> u64 {
        let first_page = self.start.next_multiple_of(PAGE);
        self.end.saturating_sub(first_page)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    use super::*;
    use crate::machine::loader::Entry;

    const MIB: u64 = 1 << 20;

    fn room(start: u64, memory: u64, reach: u64) -> Room {
        Room {
            start,
            end: memory.min(MMIO_HOLE_START).min(reach.saturating_add(1)),
        }
    }

    fn place(size: u64, start: u64, memory: u64, reach: u64) -> Option<u64> {
        let place = room(start, memory, reach).for_bytes(size);
        place.map(|(address, _)| address)
    }

    #[test]
    fn a_ram_disk_lies_as_high_as_memory_and_kernel_allow() {
        assert_eq!(
            place(5000, 16 * MIB, 64 * MIB, u64::MAX - 1),
            Some(64 * MIB - 8192)
        );
        assert_eq!(
            place(MIB, 16 * MIB, 8 << 30, 0x7fff_ffff),
            Some((2 << 30) - MIB)
        );
        assert_eq!(
            place(MIB, 16 * MIB, 8 << 30, u64::from(u32::MAX)),
            Some(MMIO_HOLE_START - MIB)
        );
    }

    #[test]
    fn a_ram_disk_that_would_touch_the_kernel_does_not_fit() {
        assert_eq!(
            place(48 * MIB, 16 * MIB, 64 * MIB, u64::MAX - 1),
            Some(16 * MIB)
        );
        assert_eq!(place(48 * MIB + 1, 16 * MIB, 64 * MIB, u64::MAX - 1), None);
        assert_eq!(place(u64::MAX, 16 * MIB, 64 * MIB, u64::MAX), None);
    }

    #[test]
    fn so_many_bytes_fit_and_not_one_more() {
        for start in [16 * MIB, 16 * MIB + 1] {
            let room = room(start, 64 * MIB, u64::MAX);
            assert!(room.for_bytes(room.bytes()).is_some());
            assert!(room.for_bytes(room.bytes() + 1).is_none());
        }
        assert_eq!(room(64 * MIB, 16 * MIB, u64::MAX).bytes(), 0);
    }

    /// Loads what is at `path` into 4 MiB of memory, of which a kernel has half.
    fn load_into(path: &Path) -> Result<Vec<u8>, InitrdError> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).expect("memory");
        let kernel = Loaded {
            entry: Entry::Long(GuestAddress(MIB)),
            end: 2 * MIB,
            header: None,
        };
        let initrd = load_initrd(path, &kernel, &memory, 4 * MIB)?;
        let mut bytes = vec![0; initrd.size as usize];
        memory
            .read_slice(&mut bytes, GuestAddress(initrd.address))
            .expect("it is in memory");
        Ok(bytes)
    }

    /// What is loaded when `bytes` come out of a pipe.
    fn from_pipe(bytes: Vec<u8>) -> Result<Vec<u8>, InitrdError> {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        let writes = std::thread::spawn(move || {
            // Nobody reads any more when there is too much.
            let _ = io::Write::write_all(&mut writer, &bytes);
        });
        let loaded = load_into(&path);
        drop(reader);
        writes.join().expect("no panic");
        loaded
    }

    #[test]
    fn what_comes_from_a_pipe_is_read_to_its_end() {
        let bytes: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
        assert_eq!(from_pipe(bytes.clone()).expect("it fits"), bytes);
    }

    #[test]
    fn a_pipe_that_has_more_than_fits_is_refused_with_what_would_fit() {
        let error = from_pipe(vec![7; 2 << 20 | 1]).expect_err("too long");
        assert!(
            matches!(error, InitrdError::TooLong { most, .. } if most == 2 * MIB),
            "{error}"
        );
        assert_eq!(from_pipe(vec![7; 2 << 20]).expect("it fits").len(), 2 << 20);
    }

    #[test]
    fn a_file_that_does_not_say_how_long_it_is_is_read_to_its_end() {
        let version = std::fs::read("/proc/version").expect("a version");
        let loaded = load_into(Path::new("/proc/version")).expect("it fits");
        assert_eq!(loaded, version);
    }

    #[test]
    fn an_endless_file_and_an_empty_one_are_refused() {
        let endless = load_into(Path::new("/dev/zero"));
        assert!(matches!(endless, Err(InitrdError::TooLong { .. })));
        let empty = load_into(Path::new("/dev/null")).expect_err("empty");
        assert!(matches!(empty, InitrdError::Empty { .. }), "{empty}");
        assert!(matches!(
            from_pipe(Vec::new()),
            Err(InitrdError::Empty { .. })
        ));
    }
}
