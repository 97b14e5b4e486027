//! Whether a kernel's file is as long as its own headers require. A copy that ended early (a full disk, a
//! broken download) would boot zeros.

use super::error::LoadError;

/// Bytes of an ELF header, and of each program header.
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Of a bzImage: length of the real-mode part in sectors beside the first, and of the rest in paragraphs.
const SETUP_SECTS_AT: usize = 0x1f1;
const SYSSIZE_AT: usize = 0x1f4;
/// The number of sectors of a file that has 0 in that place.
const DEFAULT_SETUP_SECTS: u8 = 4;
const SECTOR: u64 = 512;
const PARAGRAPH: u64 = 16;
/// Where the 64-bit entry is in the protected-mode part.
pub(super) const ENTRY_64: u64 = 0x200;
/// The shortest protected-mode part: one with an instruction at the entry.
const LEAST_CODE: u64 = ENTRY_64 + 1;

/// Checks that the ELF file `image` has all that its headers describe.
pub(crate) fn check_elf(what: &str, image: &[u8]) -> Result<(), LoadError> {
    check_length(what, image, ELF_HEADER as u64)?;
    let headers = number(image, 32);
    let count = u64::from(u16::from_le_bytes([image[56], image[57]]));
    check_length(
        what,
        image,
        headers.saturating_add(count * PROGRAM_HEADER as u64),
    )?;
    // The length was checked above.
    let headers = image.get(headers as usize..).unwrap_or_default();
    for header in headers.chunks_exact(PROGRAM_HEADER).take(count as usize) {
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if [PT_LOAD, PT_NOTE].contains(&kind) {
            let (offset, length) = (number(header, 8), number(header, 32));
            if length > 0 {
                check_length(what, image, offset.saturating_add(length))?;
            }
        }
    }
    Ok(())
}

/// Checks that the bzImage `image`, whose magic number is there, has all that its header describes.
pub(crate) fn check_bzimage(what: &str, image: &[u8]) -> Result<(), LoadError> {
    check_length(what, image, SETUP_SECTS_AT as u64 + 1)?;
    let sectors = match image[SETUP_SECTS_AT] {
        0 => DEFAULT_SETUP_SECTS,
        sectors => sectors,
    };
    let setup = (u64::from(sectors) + 1) * SECTOR;
    check_length(what, image, setup)?;
    let paragraphs = image
        .get(SYSSIZE_AT..SYSSIZE_AT + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    // The last paragraph may be incomplete.
    let code = (u64::from(paragraphs) * PARAGRAPH).saturating_sub(PARAGRAPH - 1);
    check_length(what, image, setup + code.max(LEAST_CODE))
}

fn check_length(what: &str, image: &[u8], needed: u64) -> Result<(), LoadError> {
    let size = image.len() as u64;
    match size < needed {
        true => Err(LoadError::CutShort {
            what: what.to_owned(),
            size,
            needed,
        }),
        false => Ok(()),
    }
}

/// The 64-bit number at `at`, which must be in `bytes`.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of one segment of 100 bytes behind its headers.
    fn elf() -> Vec<u8> {
        let mut image = vec![0; ELF_HEADER + PROGRAM_HEADER + 100];
        image[32] = ELF_HEADER as u8;
        image[56] = 1;
        let header = &mut image[ELF_HEADER..];
        header[0] = PT_LOAD as u8;
        header[8] = (ELF_HEADER + PROGRAM_HEADER) as u8;
        header[32] = 100;
        image
    }

    /// A bzImage of two sectors and `code` bytes.
    fn bzimage(code: usize) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR as usize + code];
        image[SETUP_SECTS_AT] = 1;
        image[SYSSIZE_AT] = (code as u64).div_ceil(PARAGRAPH) as u8;
        image
    }

    fn needed(result: Result<(), LoadError>) -> u64 {
        match result {
            Err(LoadError::CutShort { needed, .. }) => needed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_elf_file_that_ends_early_anywhere_is_cut_short() {
        let image = elf();
        check_elf("k", &image).expect("whole");
        for length in 20..image.len() {
            assert!(needed(check_elf("k", &image[..length])) > length as u64);
        }
        let mut far = image.clone();
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(needed(check_elf("k", &far)), u64::MAX);
        let mut far = image;
        far[ELF_HEADER + 8..ELF_HEADER + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(needed(check_elf("k", &far)), u64::MAX);
    }

    #[test]
    fn a_segment_without_bytes_in_the_file_may_lie_anywhere() {
        let mut image = elf();
        image[ELF_HEADER + 8..ELF_HEADER + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        image[ELF_HEADER + 32] = 0;
        check_elf("k", &image).expect("whole");
    }

    #[test]
    fn a_bzimage_that_ends_early_anywhere_is_cut_short() {
        let image = bzimage(1000);
        check_bzimage("k", &image).expect("whole");
        // 1000 bytes are 62 paragraphs and a half.
        for length in SETUP_SECTS_AT..image.len() - 7 {
            assert!(needed(check_bzimage("k", &image[..length])) > length as u64);
        }
    }

    #[test]
    fn a_bzimage_without_code_at_its_entry_is_cut_short() {
        let image = bzimage(ENTRY_64 as usize);
        assert_eq!(needed(check_bzimage("k", &image)), image.len() as u64 + 1);
    }
}
