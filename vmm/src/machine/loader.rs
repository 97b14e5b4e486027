//! Puts a 64-bit ELF kernel into guest memory.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::Elf;
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::boot::KERNEL_START;
use crate::config::KernelSource;

/// Largest kernel file that is read, bytes.
const MAX_KERNEL_FILE: u64 = 1 << 30;

/// A kernel that could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the kernel {path}: {source}", path = .path.display())]
    Read {
        /// Path as given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is longer than any kernel.
    #[error("the kernel {path} is larger than 1G", path = .0.display())]
    TooLarge(PathBuf),
    /// Not a 64-bit x86 ELF executable.
    #[error(
        "the kernel {what} is not a 64-bit x86 ELF executable (a vmlinux, not a bzImage): {why}"
    )]
    NotElf {
        /// Which kernel.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// It does not fit.
    #[error(
        "the kernel {what} does not fit: it must lie between 1M and the end of the guest's memory"
    )]
    DoesNotFit {
        /// Which kernel.
        what: String,
    },
}

/// Loads the kernel where its program headers say and returns its entry point.
///
/// # Errors
/// If it cannot be read, is not an ELF executable for this machine or does not fit into memory.
pub fn load(kernel: &KernelSource, memory: &GuestMemoryMmap) -> Result<GuestAddress, LoadError> {
    let (what, image) = match kernel {
        KernelSource::Builtin => ("built in".to_owned(), Cow::Borrowed(guest_tests::GUEST_ELF)),
        KernelSource::Path(path) => (path.display().to_string(), Cow::Owned(read(path.clone())?)),
    };
    load_image(&what, &image, memory)
}

fn read(path: PathBuf) -> Result<Vec<u8>, LoadError> {
    let mut image = Vec::new();
    let result = fs::File::open(&path)
        .and_then(|file| file.take(MAX_KERNEL_FILE + 1).read_to_end(&mut image));
    match result {
        Ok(_) if image.len() as u64 > MAX_KERNEL_FILE => Err(LoadError::TooLarge(path)),
        Ok(_) => Ok(image),
        Err(source) => Err(LoadError::Read { path, source }),
    }
}

fn load_image(
    what: &str,
    image: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<GuestAddress, LoadError> {
    let not_elf = |why: &str| LoadError::NotElf {
        what: what.to_owned(),
        why: why.to_owned(),
    };
    // linux-loader looks at neither the class nor the machine.
    match image.get(..20) {
        Some(head) if head.starts_with(b"\x7fELF") => {
            if head[4] != 2 {
                return Err(not_elf("it is a 32-bit ELF file"));
            }
            if u16::from_le_bytes([head[18], head[19]]) != 62 {
                return Err(not_elf("it is for another processor"));
            }
            if u16::from_le_bytes([head[16], head[17]]) != 2 {
                return Err(not_elf("it is no static executable"));
            }
        }
        _ => return Err(not_elf("it does not start with an ELF header")),
    }
    let loaded = Elf::load(
        memory,
        None,
        &mut Cursor::new(image),
        Some(GuestAddress(KERNEL_START)),
    )
    .map_err(|error| {
        use linux_loader::loader::Error;
        use linux_loader::loader::elf::Error as ElfError;
        match error {
            Error::MemoryOverflow
            | Error::Elf(ElfError::ReadKernelImage | ElfError::InvalidEntryAddress) => {
                LoadError::DoesNotFit {
                    what: what.to_owned(),
                }
            }
            other => not_elf(&other.to_string()),
        }
    })?;
    let entry = loaded.kernel_load;
    let end = GuestAddress(loaded.kernel_end.saturating_sub(1));
    if loaded.kernel_end == 0 || !memory.address_in_range(entry) || !memory.address_in_range(end) {
        return Err(LoadError::DoesNotFit {
            what: what.to_owned(),
        });
    }
    Ok(entry)
}
