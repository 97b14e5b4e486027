//! The initial RAM disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::initrd_room::{InitrdError, InitrdRoom, InitrdSize};
use super::loaded::Loaded;

/// Highest address of a RAM disk for an ELF kernel, whose file does not name one: that of Linux's bzImage.
const ELF_INITRD_MAX: u32 = 0x7fff_ffff;

/// A RAM disk in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// What a file contains.
enum Content {
    /// The next so many bytes of the file.
    File(File, u64),
    /// Bytes that were read from a file without a length.
    Bytes(Vec<u8>),
}

impl Content {
    /// The size, of which at most one byte more than `most` was read.
    fn size(&self, most: u64) -> InitrdSize {
        match self {
            Self::File(_, size) => InitrdSize::Exactly(*size),
            Self::Bytes(bytes) if bytes.len() as u64 > most => {
                InitrdSize::AtLeast(bytes.len() as u64)
            }
            Self::Bytes(bytes) => InitrdSize::Exactly(bytes.len() as u64),
        }
    }

    fn write(self, memory: &GuestMemoryMmap, address: GuestAddress) -> io::Result<()> {
        match self {
            Self::File(mut file, size) => {
                let length = usize::try_from(size).map_err(io::Error::other)?;
                memory.read_exact_volatile_from(address, &mut file, length)
            }
            Self::Bytes(bytes) => memory.write_slice(&bytes, address),
        }
        .map_err(io::Error::other)
    }
}

/// Loads the RAM disk at `path` as high as `kernel` can reach it, above the kernel.
///
/// # Errors
/// If the file cannot be read or is empty, or there is no room.
pub fn load_initrd(
    path: &Path,
    kernel: &Loaded,
    memory: &GuestMemoryMmap,
    memory_size: u64,
) -> Result<Initrd, InitrdError> {
    let cannot_read = |source| InitrdError::Read {
        path: path.to_owned(),
        source,
    };
    let room = InitrdRoom {
        start: kernel.end,
        memory: memory_size,
        reach: reach(kernel),
    };
    let content = open(path, room.size()).map_err(cannot_read)?;
    let size = content.size(room.size());
    if size.bytes() == 0 {
        return Err(InitrdError::Empty(path.to_owned()));
    }
    let address = room
        .address_for(size.bytes())
        .ok_or_else(|| room.refuse(path, size))?;
    content
        .write(memory, GuestAddress(address))
        .map_err(cannot_read)?;
    Ok(Initrd {
        address,
        size: size.bytes(),
    })
}

/// First address that `kernel` cannot use for a RAM disk. A kernel whose highest address is 0 can use none.
fn reach(kernel: &Loaded) -> u64 {
    let last = kernel
        .header
        .map_or(ELF_INITRD_MAX, |header| header.initrd_addr_max);
    match last {
        0 => 0,
        last => u64::from(last) + 1,
    }
}

/// Opens the file. A file that has no length of its own (a pipe, a device) is read here, but at most one
/// byte more than `most`.
fn open(path: &Path, most: u64) -> io::Result<Content> {
    let file = File::open(path)?;
    let status = file.metadata()?;
    // Files of /proc and the like have length 0.
    if status.is_file() && status.len() > 0 {
        return Ok(Content::File(file, status.len()));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Content::Bytes(bytes))
}
