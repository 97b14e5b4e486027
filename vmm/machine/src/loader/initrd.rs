//! The initial RAM disk: as high as the kernel can reach it, above the kernel.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::kernel::{ELF_INITRD_MAX, Loaded};
use crate::layout::MMIO_HOLE_START;

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
        "the initial RAM disk {path} is empty: give another file, or none", path = .0.display()
    )]
    Empty(PathBuf),
    /// It does not fit between the kernel and the end of low memory.
    #[error(
        "the initial RAM disk {path} has {size}, which do not fit beside the kernel: give \
         the guest more memory", path = .path.display()
    )]
    DoesNotFit {
        /// Path as given.
        path: PathBuf,
        /// Its size.
        size: Size,
    },
    /// It does not fit where the kernel can use it, however much memory there is.
    #[error(
        "the initial RAM disk {path} has {size}, and the kernel can use at most {room} bytes, below \
         address {end:#x}: give a smaller one, or another kernel", path = .path.display()
    )]
    OutOfReach {
        /// Path as given.
        path: PathBuf,
        /// Its size.
        size: Size,
        /// Most bytes that such a disk can have.
        room: u64,
        /// Where it has to end.
        end: u64,
    },
}

/// How long a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Exactly(u64),
    /// So many bytes at least: a pipe or device, which was read no further.
    AtLeast(u64),
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes} bytes"),
            Self::AtLeast(bytes) => write!(f, "at least {bytes} bytes"),
        }
    }
}

impl Size {
    fn bytes(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtLeast(bytes) => bytes,
        }
    }
}

/// Where a RAM disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Where a RAM disk may lie.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// First byte after the kernel.
    start: u64,
    /// Bytes of memory.
    memory: u64,
    /// First address that the kernel cannot use for it.
    reach: u64,
}

impl Room {
    /// Where it has to end if there is as much memory.
    fn end(self) -> u64 {
        self.memory.min(MMIO_HOLE_START).min(self.reach)
    }

    /// The most bytes that fit.
    fn size(self) -> u64 {
        // It begins with a page.
        let start = self.start.next_multiple_of(PAGE);
        self.end().saturating_sub(start)
    }

    /// The highest whole page from which `size` bytes fit.
    fn place(self, size: u64) -> Option<u64> {
        let address = self.end().checked_sub(size)? & !(PAGE - 1);
        (address >= self.start).then_some(address)
    }

    /// The same place in a guest with all the memory that there can be.
    fn with_all_memory(self) -> Self {
        Self {
            memory: u64::MAX,
            ..self
        }
    }

    fn refuse(self, path: &Path, size: Size) -> InitrdError {
        let path = path.to_owned();
        let most = self.with_all_memory();
        match most.place(size.bytes()) {
            Some(_) => InitrdError::DoesNotFit { path, size },
            None => InitrdError::OutOfReach {
                path,
                size,
                room: most.size(),
                end: most.end(),
            },
        }
    }
}

/// What is in the file.
enum Content {
    /// The next so many bytes of the file.
    File(File, u64),
    /// What came out of it.
    Bytes(Vec<u8>),
}

/// Loads the RAM disk at `path` as high as `kernel` can reach it, above the kernel.
///
/// # Errors
/// If it cannot be read or is empty, or there is no room.
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
    let last = kernel
        .header
        .map_or(ELF_INITRD_MAX, |header| header.initrd_addr_max);
    let room = Room {
        start: kernel.end,
        memory: memory_size,
        // A kernel that names the address 0 can use none.
        reach: match last {
            0 => 0,
            last => u64::from(last) + 1,
        },
    };
    let content = open(path, room.size()).map_err(cannot)?;
    let size = match &content {
        Content::File(_, size) => Size::Exactly(*size),
        Content::Bytes(bytes) if bytes.len() as u64 > room.size() => {
            Size::AtLeast(bytes.len() as u64)
        }
        Content::Bytes(bytes) => Size::Exactly(bytes.len() as u64),
    };
    if size.bytes() == 0 {
        return Err(InitrdError::Empty(path.to_owned()));
    }
    let refuse = || room.refuse(path, size);
    let address = room.place(size.bytes()).ok_or_else(refuse)?;
    let place = GuestAddress(address);
    let written = match content {
        Content::File(mut file, size) => {
            let length = usize::try_from(size).map_err(|_| refuse())?;
            memory.read_exact_volatile_from(place, &mut file, length)
        }
        Content::Bytes(bytes) => memory.write_slice(&bytes, place),
    };
    written.map_err(|error| cannot(io::Error::other(error)))?;
    Ok(Initrd {
        address,
        size: size.bytes(),
    })
}

/// Opens the file. What has no length of its own (a pipe, a device) is read here, but no more than a byte
/// beyond `most`.
fn open(path: &Path, most: u64) -> io::Result<Content> {
    let file = fs::File::open(path)?;
    let status = file.metadata()?;
    // Files that the kernel makes up, in /proc for one, say 0.
    if status.is_file() && status.len() > 0 {
        return Ok(Content::File(file, status.len()));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Content::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(start: u64, memory: u64, reach: u64) -> Room {
        Room {
            start,
            memory,
            reach,
        }
    }

    #[test]
    fn a_ram_disk_ends_with_low_memory_or_where_the_kernel_reaches() {
        let all = u64::MAX;
        assert_eq!(
            room(16 * MIB, 64 * MIB, all).place(5000),
            Some(64 * MIB - 8192)
        );
        assert_eq!(
            room(16 * MIB, 8 << 30, 2 << 30).place(MIB),
            Some((2 << 30) - MIB)
        );
        assert_eq!(
            room(16 * MIB, 8 << 30, 4 << 30).place(MIB),
            Some(MMIO_HOLE_START - MIB)
        );
    }

    #[test]
    fn a_ram_disk_that_would_lie_in_the_kernel_does_not_fit() {
        let room = room(16 * MIB, 64 * MIB, u64::MAX);
        assert_eq!(room.place(48 * MIB), Some(16 * MIB));
        assert_eq!(room.place(48 * MIB + 1), None);
        assert_eq!(room.place(u64::MAX), None);
    }

    #[test]
    fn what_fits_at_most_does_fit() {
        for start in [16 * MIB, 16 * MIB + 1, 16 * MIB + PAGE - 1] {
            for end in [64 * MIB, 64 * MIB - 1, 64 * MIB - PAGE + 1] {
                for room in [room(start, end, u64::MAX), room(start, u64::MAX, end)] {
                    assert!(room.place(room.size()).is_some(), "{room:?}");
                    assert_eq!(room.place(room.size() + 1), None, "{room:?}");
                }
            }
        }
        assert_eq!(room(16 * MIB, 64 * MIB, 0).size(), 0);
    }

    #[test]
    fn more_memory_is_advised_only_where_it_helps() {
        let path = Path::new("initrd.img");
        let small = room(16 * MIB, 64 * MIB, 2 << 30);
        let error = small.refuse(path, Size::Exactly(100 * MIB)).to_string();
        assert!(error.ends_with("give the guest more memory"), "{error}");
        for (room, size) in [
            (room(16 * MIB, 64 * MIB, 0), 6),
            (room(16 * MIB, 64 * MIB, 2 << 30), 2 << 30),
            (room(16 * MIB, 8 << 30, u64::MAX), 3 << 30),
        ] {
            let error = room.refuse(path, Size::Exactly(size)).to_string();
            assert!(error.contains("give a smaller one"), "{error}");
        }
    }
}
