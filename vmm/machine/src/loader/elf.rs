//! A 64-bit ELF file.

use std::io::Cursor;

use linux_loader::loader::elf::{self, Elf, PvhBootCapability};
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::error::LoadError;
use super::extent;
use super::loaded::{Entry, Loaded};
use crate::layout::KERNEL_START;

/// `e_ident[EI_CLASS]`: 64 bits.
const CLASS_64: u8 = 2;
/// `e_type`: an executable that is not relocatable.
const TYPE_EXEC: u16 = 2;
/// `e_machine`: x86-64.
const MACHINE_X86_64: u16 = 62;

/// Loads the ELF file `image` of the kernel `what`.
pub(super) fn load(
    what: &str,
    image: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<Loaded, LoadError> {
    check_header(what, image)?;
    extent::check_elf(what, image)?;
    let loaded = load_segments(what, image, memory)?;
    let entry = entry(&loaded);
    let loads = GuestAddress(KERNEL_START)..GuestAddress(loaded.kernel_end);
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

/// linux-loader checks neither the class nor the machine.
fn check_header(what: &str, image: &[u8]) -> Result<(), LoadError> {
    let why = match image.get(..20) {
        Some(head) if head.starts_with(b"\x7fELF") => {
            let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
            if head[4] != CLASS_64 {
                "it is a 32-bit ELF file"
            } else if half(18) != MACHINE_X86_64 {
                "it is for another processor"
            } else if half(16) != TYPE_EXEC {
                "it is an ELF file, but not a static executable"
            } else {
                return Ok(());
            }
        }
        _ => "it does not start with an ELF header",
    };
    Err(LoadError::not_a_kernel(what, why))
}

fn load_segments(
    what: &str,
    image: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<KernelLoaderResult, LoadError> {
    use linux_loader::loader::Error;
    let loaded =
        Elf::load(memory, None, &mut Cursor::new(image), None).map_err(|error| match error {
            Error::MemoryOverflow | Error::Elf(elf::Error::ReadKernelImage) => {
                LoadError::does_not_fit(what)
            }
            other => LoadError::not_a_kernel(what, other),
        })?;
    let last = GuestAddress(loaded.kernel_end.saturating_sub(1));
    if loaded.kernel_end == 0 || !memory.address_in_range(last) {
        return Err(LoadError::does_not_fit(what));
    }
    Ok(loaded)
}

/// With a PVH note, the entry in the header has no meaning: some kernels have a virtual address there.
fn entry(loaded: &KernelLoaderResult) -> Entry {
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => Entry::Pvh(address),
        _ => Entry::Long(loaded.kernel_load),
    }
}
