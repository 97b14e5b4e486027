//! A Linux `bzImage`.

use std::io::Cursor;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::{self, BzImage};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::error::LoadError;
use super::extent::{self, ENTRY_64};
use super::loaded::{Entry, Loaded};
use crate::layout::KERNEL_START;

/// Offset of the magic number, and the number.
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8; 4] = b"HdrS";
/// Offset of the version of the boot protocol.
const VERSION_AT: usize = 0x206;
/// Offset of the address that the kernel prefers.
const PREFERRED_ADDRESS_AT: usize = 0x258;
/// First version of the boot protocol with a 64-bit entry: 2.12.
const PROTOCOL_64BIT: u16 = 0x020c;
/// `xloadflags`: the kernel has that entry.
const XLF_KERNEL_64: u16 = 1;
/// What is wrong with a kernel that is older than the protocol.
const OLD: &str = "it is not a 64-bit kernel of Linux 3.8 or later";

/// Whether `image` is a bzImage.
pub(crate) fn is_bzimage(image: &[u8]) -> bool {
    image.get(MAGIC_AT..MAGIC_AT + 4) == Some(&MAGIC[..])
}

/// Loads the bzImage `image` of the kernel `what`. The protected-mode part goes to the address that the
/// kernel prefers, so that the kernel need not move it.
pub(super) fn load(
    what: &str,
    image: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<Loaded, LoadError> {
    let start = check(what, image)?;
    let (header, kernel_end) = load_protected_mode(what, image, start, memory)?;
    let end = end_of_init(what, start, &header, memory)?;
    Ok(Loaded {
        entry: Entry::Long(GuestAddress(start + ENTRY_64)),
        end: end.max(kernel_end),
        header: Some(header),
    })
}

/// Checks version and length of `image`. Returns the address to which the kernel is to be loaded.
fn check(what: &str, image: &[u8]) -> Result<u64, LoadError> {
    if image
        .get(VERSION_AT..VERSION_AT + 2)
        .is_some_and(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]) < PROTOCOL_64BIT)
    {
        return Err(LoadError::not_a_kernel(what, OLD));
    }
    extent::check_bzimage(what, image)?;
    let preferred = image
        .get(PREFERRED_ADDRESS_AT..PREFERRED_ADDRESS_AT + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(|| LoadError::not_a_kernel(what, "it ends in its header"))?;
    Ok(preferred.max(KERNEL_START))
}

/// Loads the protected-mode part to `start`. Returns the header and the end of that part.
fn load_protected_mode(
    what: &str,
    image: &[u8],
    start: u64,
    memory: &GuestMemoryMmap,
) -> Result<(setup_header, u64), LoadError> {
    use linux_loader::loader::Error;
    let address = Some(GuestAddress(start));
    let loaded = BzImage::load(memory, address, &mut Cursor::new(image), None).map_err(
        |error| match error {
            Error::Bzimage(bzimage::Error::ReadBzImageCompressedKernel) | Error::MemoryOverflow => {
                LoadError::does_not_fit(what)
            }
            other => LoadError::not_a_kernel(what, other),
        },
    )?;
    let header = loaded
        .setup_header
        .ok_or_else(|| LoadError::not_a_kernel(what, "it has no header"))?;
    if header.version < PROTOCOL_64BIT || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(LoadError::not_a_kernel(what, OLD));
    }
    Ok((header, loaded.kernel_end))
}

/// The end of the memory that the kernel at `start` needs until it has its own memory management. All of
/// that memory must exist, without a hole.
fn end_of_init(
    what: &str,
    start: u64,
    header: &setup_header,
    memory: &GuestMemoryMmap,
) -> Result<u64, LoadError> {
    let does_not_fit = || LoadError::does_not_fit(what);
    let end = start
        .checked_add(header.init_size.into())
        .ok_or_else(does_not_fit)?;
    let size = (end - start) as usize;
    if size > 0 && !memory.check_range(GuestAddress(start), size)
        || !memory.address_in_range(GuestAddress(end))
    {
        return Err(does_not_fit());
    }
    Ok(end)
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
        let error = load("k", &image, &memory).expect_err("32 bits");
        assert!(error.to_string().contains("64-bit"), "{error}");
    }
}
