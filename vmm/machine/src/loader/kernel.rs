//! Puts a kernel into guest memory: a 64-bit ELF file (`vmlinux`, or any bare-metal one) or a Linux
//! `bzImage` (`vmlinuz`). Its initial RAM disk is put there by `initrd.rs`.
//!
//! A bzImage, and an ELF file without a PVH note, is entered by the 64-bit boot protocol, an ELF file
//! with one by PVH (`boot.rs`).
//!
//! | file | idea |
//! |---|---|
//! | `extent.rs` | whether the file has all that its headers speak of |
//! | `initrd.rs` | the RAM disk |

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use baton_config::KernelSource;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::boot::KERNEL_START;

use super::extent;

/// Of a bzImage: offset of its magic number, and the number.
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8; 4] = b"HdrS";
/// Offset of the version of the boot protocol.
const VERSION_AT: usize = 0x206;
/// What is wrong with a kernel that is older than the protocol.
const OLD: &str = "it is no 64-bit kernel of Linux 3.8 or later";
/// Offset of the address where it wants to be.
const PREFERRED_ADDRESS_AT: usize = 0x258;
/// First version of the boot protocol with a 64-bit entry: 2.12.
const PROTOCOL_64BIT: u16 = 0x020c;
/// `xloadflags`: it has the entry.
const XLF_KERNEL_64: u16 = 1;
/// Where the entry is in the protected-mode part.
pub(crate) const ENTRY_64: u64 = 0x200;
/// Highest address of a RAM disk for an ELF kernel, which does not say: what Linux says in its
/// bzImage.
pub(crate) const ELF_INITRD_MAX: u32 = 0x7fff_ffff;

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
    /// No kernel that can be booted here.
    #[error(
        "the kernel {what} cannot be booted: {why}; give a static 64-bit x86 ELF executable (vmlinux) or \
         a bzImage (vmlinuz)"
    )]
    NotAKernel {
        /// Which kernel.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The file has not all of it.
    #[error(
        "the kernel {what} is cut short: it has {size} bytes, and by its header at least {needed}; copy or \
         build it again"
    )]
    CutShort {
        /// Which kernel.
        what: String,
        /// Bytes that there are.
        size: u64,
        /// Bytes that there must be.
        needed: u64,
    },
    /// It cannot be entered where it says.
    #[error("the kernel {what} cannot be started: its {entry} is not in what it loads above 1M")]
    NoEntry {
        /// Which kernel.
        what: String,
        /// Where it would be entered.
        entry: Entry,
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

/// Where and by which protocol a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The Linux 64-bit boot protocol: in long mode.
    Long(GuestAddress),
    /// PVH: in 32-bit protected mode without paging.
    Pvh(GuestAddress),
}

impl Entry {
    /// Guest-physical address of its first instruction.
    #[must_use]
    pub fn address(self) -> GuestAddress {
        match self {
            Self::Long(address) | Self::Pvh(address) => address,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long(address) => write!(f, "64-bit entry {:#x} (it has no PVH entry)", address.0),
            Self::Pvh(address) => write!(f, "PVH entry {:#x}", address.0),
        }
    }
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Where it is entered.
    pub entry: Entry,
    /// First byte after all that it needs before it has its own memory management.
    pub end: u64,
    /// What a bzImage says about itself.
    pub header: Option<setup_header>,
}

/// Loads the kernel where its headers say.
///
/// # Errors
/// If it cannot be read, is no kernel for this machine or does not fit into memory.
pub fn load(
    kernel: &KernelSource,
    builtin: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<Loaded, LoadError> {
    let (what, image) = match kernel {
        KernelSource::Builtin => ("built in".to_owned(), Cow::Borrowed(builtin)),
        KernelSource::Path(path) => (path.display().to_string(), Cow::Owned(read(path.clone())?)),
    };
    if image.get(MAGIC_AT..MAGIC_AT + 4) == Some(&MAGIC[..]) {
        load_bzimage(&what, &image, memory)
    } else {
        load_elf(&what, &image, memory)
    }
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

/// The protected-mode part goes to the address that the kernel prefers, which spares it a move.
fn load_bzimage(what: &str, image: &[u8], memory: &GuestMemoryMmap) -> Result<Loaded, LoadError> {
    let not_a_kernel = |why: &str| LoadError::NotAKernel {
        what: what.to_owned(),
        why: why.to_owned(),
    };
    let does_not_fit = || LoadError::DoesNotFit {
        what: what.to_owned(),
    };
    if image
        .get(VERSION_AT..VERSION_AT + 2)
        .is_some_and(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]) < PROTOCOL_64BIT)
    {
        return Err(not_a_kernel(OLD));
    }
    extent::check_bzimage(what, image)?;
    let preferred = image
        .get(PREFERRED_ADDRESS_AT..PREFERRED_ADDRESS_AT + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(|| not_a_kernel("it ends in its header"))?;
    let start = preferred.max(KERNEL_START);
    let loaded = BzImage::load(
        memory,
        Some(GuestAddress(start)),
        &mut Cursor::new(image),
        None,
    )
    .map_err(|error| {
        use linux_loader::loader::Error;
        use linux_loader::loader::bzimage::Error as BzError;
        match error {
            Error::Bzimage(BzError::ReadBzImageCompressedKernel) | Error::MemoryOverflow => {
                does_not_fit()
            }
            other => not_a_kernel(&other.to_string()),
        }
    })?;
    let header = loaded
        .setup_header
        .ok_or_else(|| not_a_kernel("it has no header"))?;
    if header.version < PROTOCOL_64BIT || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(not_a_kernel(OLD));
    }
    let needs = start
        .checked_add(header.init_size.into())
        .ok_or_else(does_not_fit)?;
    // All of it, without a hole.
    let needed = (needs - start) as usize;
    if needed > 0 && !memory.check_range(GuestAddress(start), needed)
        || !memory.address_in_range(GuestAddress(needs))
    {
        return Err(does_not_fit());
    }
    Ok(Loaded {
        entry: Entry::Long(GuestAddress(start + ENTRY_64)),
        end: needs.max(loaded.kernel_end),
        header: Some(header),
    })
}

fn load_elf(what: &str, image: &[u8], memory: &GuestMemoryMmap) -> Result<Loaded, LoadError> {
    let not_a_kernel = |why: &str| LoadError::NotAKernel {
        what: what.to_owned(),
        why: why.to_owned(),
    };
    // linux-loader looks at neither the class nor the machine.
    match image.get(..20) {
        Some(head) if head.starts_with(b"\x7fELF") => {
            if head[4] != 2 {
                return Err(not_a_kernel("it is a 32-bit ELF file"));
            }
            if u16::from_le_bytes([head[18], head[19]]) != 62 {
                return Err(not_a_kernel("it is for another processor"));
            }
            if u16::from_le_bytes([head[16], head[17]]) != 2 {
                return Err(not_a_kernel("it is an ELF file, but no static executable"));
            }
        }
        _ => return Err(not_a_kernel("it does not start with an ELF header")),
    }
    extent::check_elf(what, image)?;
    let loaded = Elf::load(memory, None, &mut Cursor::new(image), None).map_err(|error| {
        use linux_loader::loader::Error;
        use linux_loader::loader::elf::Error as ElfError;
        match error {
            Error::MemoryOverflow | Error::Elf(ElfError::ReadKernelImage) => {
                LoadError::DoesNotFit {
                    what: what.to_owned(),
                }
            }
            other => not_a_kernel(&other.to_string()),
        }
    })?;
    let end = GuestAddress(loaded.kernel_end.saturating_sub(1));
    if loaded.kernel_end == 0 || !memory.address_in_range(end) {
        return Err(LoadError::DoesNotFit {
            what: what.to_owned(),
        });
    }
    // With a PVH note the entry in the header means nothing: some kernels have a virtual address there.
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => Entry::Pvh(address),
        _ => Entry::Long(loaded.kernel_load),
    };
    let loads = GuestAddress(KERNEL_START)..=end;
    if !loads.contains(&entry.address()) || !memory.address_in_range(entry.address()) {
        return Err(LoadError::NoEntry {
            what: what.to_owned(),
            entry,
        });
    }
    Ok(Loaded {
        entry,
        end: loaded.kernel_end,
        header: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bzimage_without_a_64_bit_entry_is_refused() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).expect("memory");
        let mut image = vec![0; 0x1000];
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        image[0x206..0x208].copy_from_slice(&0x0209u16.to_le_bytes());
        image[0x211] = 1;
        let error = load_bzimage("k", &image, &memory).expect_err("32 bits");
        assert!(error.to_string().contains("64-bit"), "{error}");
    }
}
