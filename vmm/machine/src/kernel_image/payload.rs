//! The compressed kernel in a bzImage (Documentation/arch/x86/boot.rst of Linux).

use std::borrow::Cow;

use thiserror::Error;

use super::compression::{Compression, DecompressError, MAX_KERNEL};

const SETUP_SECTS_AT: usize = 0x1f1;
const VERSION_AT: usize = 0x206;
const KERNEL_VERSION_AT: usize = 0x20e;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
const SECTOR: usize = 512;
/// First version of the boot protocol whose header names the payload: 2.08.
const PROTOCOL_PAYLOAD: u16 = 0x0208;
/// Longest version of a kernel, bytes.
const MAX_VERSION: usize = 256;

/// The kernel in a bzImage could not be read.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// The header of the bzImage names no bytes of the file.
    #[error("its header names no compressed kernel in the file")]
    NoPayload,
    /// The kernel could not be decompressed.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// The kernel in the bzImage `image`, and how it is compressed: `None` if it is not.
///
/// # Errors
/// As [`PayloadError`].
pub(super) fn unpack(image: &[u8]) -> Result<(Cow<'_, [u8]>, Option<Compression>), PayloadError> {
    let payload = payload(image).ok_or(PayloadError::NoPayload)?;
    if payload.starts_with(b"\x7fELF") {
        return Ok((Cow::Borrowed(payload), None));
    }
    let format = Compression::of(payload).ok_or(DecompressError::Unknown)?;
    let kernel = format.decompress(payload, MAX_KERNEL)?;
    Ok((Cow::Owned(kernel), Some(format)))
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    if half(image, VERSION_AT)? < PROTOCOL_PAYLOAD {
        return None;
    }
    // 0 stands for 4, of old.
    let sectors = match *image.get(SETUP_SECTS_AT)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR;
    let protected_mode = image.get(start..)?;
    let behind = protected_mode.get(word(image, PAYLOAD_OFFSET_AT)?..)?;
    let payload = behind.get(..word(image, PAYLOAD_LENGTH_AT)?)?;
    (!payload.is_empty()).then_some(payload)
}

/// The version of Linux that the header of the bzImage `image` names.
pub(super) fn version(image: &[u8]) -> Option<String> {
    let at = SECTOR + usize::from(half(image, KERNEL_VERSION_AT)?);
    let text = image.get(at..)?;
    let text = &text[..text.len().min(MAX_VERSION)];
    let end = text.iter().position(|byte| !byte.is_ascii_graphic())?;
    (at > SECTOR && end > 0).then(|| String::from_utf8_lossy(&text[..end]).into_owned())
}

fn half(image: &[u8], at: usize) -> Option<u16> {
    let bytes = image.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}
