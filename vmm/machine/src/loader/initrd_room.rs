//! Where a RAM disk can be: as high as the kernel can reach it, above the kernel.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::layout::MMIO_HOLE_START;

const PAGE: u64 = 4096;

/// A RAM disk could not be loaded.
#[derive(Debug, Error)]
pub enum InitrdError {
    /// The file cannot be read.
    #[error("cannot read the initial RAM disk {path}: {source}", path = .path.display())]
    Read {
        /// Path as given.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The file is empty.
    #[error(
        "the initial RAM disk {path} is empty: give another file, or none", path = .0.display()
    )]
    Empty(PathBuf),
    /// The RAM disk does not fit between the kernel and the end of low memory.
    #[error(
        "the initial RAM disk {path} has {size}, which do not fit beside the kernel: give \
         the guest more memory", path = .path.display()
    )]
    DoesNotFit {
        /// Path as given.
        path: PathBuf,
        /// InitrdSize of the RAM disk.
        size: InitrdSize,
    },
    /// The RAM disk does not fit where the kernel can use it, however much memory there is.
    #[error(
        "the initial RAM disk {path} has {size}, and the kernel can use at most {room} bytes, below \
         address {end:#x}: give a smaller one, or another kernel", path = .path.display()
    )]
    OutOfReach {
        /// Path as given.
        path: PathBuf,
        /// InitrdSize of the RAM disk.
        size: InitrdSize,
        /// Most bytes of a RAM disk for this kernel.
        room: u64,
        /// First address that the kernel cannot use for it.
        end: u64,
    },
}

/// The size of a RAM disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdSize {
    /// So many bytes.
    Exactly(u64),
    /// So many bytes at least: a pipe or device, which was not read any further.
    AtLeast(u64),
}

impl std::fmt::Display for InitrdSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes} bytes"),
            Self::AtLeast(bytes) => write!(f, "at least {bytes} bytes"),
        }
    }
}

impl InitrdSize {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtLeast(bytes) => bytes,
        }
    }
}

/// Where a RAM disk may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitrdRoom {
    /// First byte after the kernel.
    pub(super) start: u64,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// First address that the kernel cannot use for it.
    pub(super) reach: u64,
}

impl InitrdRoom {
    /// First address after the room.
    fn end(self) -> u64 {
        self.memory.min(MMIO_HOLE_START).min(self.reach)
    }

    /// The most bytes that fit.
    pub(super) fn size(self) -> u64 {
        // A RAM disk begins at the start of a page.
        let start = self.start.next_multiple_of(PAGE);
        self.end().saturating_sub(start)
    }

    /// The highest start of a page from which `size` bytes fit.
    pub(super) fn address_for(self, size: u64) -> Option<u64> {
        let address = self.end().checked_sub(size)? & !(PAGE - 1);
        (address >= self.start).then_some(address)
    }

    /// The room in a guest with all the memory that there can be.
    fn with_all_memory(self) -> Self {
        Self {
            memory: u64::MAX,
            ..self
        }
    }

    /// Why a RAM disk of `size` does not fit.
    pub(super) fn refuse(self, path: &Path, size: InitrdSize) -> InitrdError {
        let path = path.to_owned();
        let most = self.with_all_memory();
        match most.address_for(size.bytes()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(start: u64, memory: u64, reach: u64) -> InitrdRoom {
        InitrdRoom {
            start,
            memory,
            reach,
        }
    }

    #[test]
    fn a_ram_disk_ends_with_low_memory_or_where_the_kernel_reaches() {
        let all = u64::MAX;
        assert_eq!(
            room(16 * MIB, 64 * MIB, all).address_for(5000),
            Some(64 * MIB - 8192)
        );
        assert_eq!(
            room(16 * MIB, 8 << 30, 2 << 30).address_for(MIB),
            Some((2 << 30) - MIB)
        );
        assert_eq!(
            room(16 * MIB, 8 << 30, 4 << 30).address_for(MIB),
            Some(MMIO_HOLE_START - MIB)
        );
    }

    #[test]
    fn a_ram_disk_that_would_lie_in_the_kernel_does_not_fit() {
        let room = room(16 * MIB, 64 * MIB, u64::MAX);
        assert_eq!(room.address_for(48 * MIB), Some(16 * MIB));
        assert_eq!(room.address_for(48 * MIB + 1), None);
        assert_eq!(room.address_for(u64::MAX), None);
    }

    #[test]
    fn the_largest_ram_disk_that_fits_has_an_address() {
        for start in [16 * MIB, 16 * MIB + 1, 16 * MIB + PAGE - 1] {
            for end in [64 * MIB, 64 * MIB - 1, 64 * MIB - PAGE + 1] {
                for room in [room(start, end, u64::MAX), room(start, u64::MAX, end)] {
                    assert!(room.address_for(room.size()).is_some(), "{room:?}");
                    assert_eq!(room.address_for(room.size() + 1), None, "{room:?}");
                }
            }
        }
        assert_eq!(room(16 * MIB, 64 * MIB, 0).size(), 0);
    }

    #[test]
    fn more_memory_is_advised_only_where_it_helps() {
        let path = Path::new("initrd.img");
        let small = room(16 * MIB, 64 * MIB, 2 << 30);
        let error = small
            .refuse(path, InitrdSize::Exactly(100 * MIB))
            .to_string();
        assert!(error.ends_with("give the guest more memory"), "{error}");
        for (room, size) in [
            (room(16 * MIB, 64 * MIB, 0), 6),
            (room(16 * MIB, 64 * MIB, 2 << 30), 2 << 30),
            (room(16 * MIB, 8 << 30, u64::MAX), 3 << 30),
        ] {
            let error = room.refuse(path, InitrdSize::Exactly(size)).to_string();
            assert!(error.contains("give a smaller one"), "{error}");
        }
    }
}
