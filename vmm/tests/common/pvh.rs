//! Kernels of a few instructions, as ELF files with a PVH note.

/// Owner of the note.
pub const OWNER: &[u8; 4] = b"Xen\0";
/// Type of the note that contains the entry.
pub const PHYS32_ENTRY: u32 = 18;

const CODE: u32 = 0x10_0000;
/// The entry in the ELF header: an address in the upper half, as in the kernel of FreeBSD.
const VIRTUAL: u64 = 0xffff_ffff_8020_0000;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Length of the ELF header and two program headers.
const HEADERS: u64 = 64 + 2 * 56;

/// An ELF file with a note of this kind by `owner`, followed by `code`, whose start is the entry.
pub fn elf(code: &[u8], owner: &[u8; 4], kind: u32) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, 4, kind] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(owner);
    note.extend_from_slice(&CODE.to_le_bytes());

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    put(&VIRTUAL.to_le_bytes());
    put(&64u64.to_le_bytes()); // program headers
    put(&[0; 12]); // no sections, no flags
    put(&[64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    let segments = [
        (PT_NOTE, HEADERS, 0, note.len() as u64),
        (
            PT_LOAD,
            HEADERS + note.len() as u64,
            CODE.into(),
            code.len() as u64,
        ),
    ];
    for (kind, offset, address, length) in segments {
        put(&kind.to_le_bytes());
        put(&7u32.to_le_bytes()); // rwx
        for word in [offset, address, address, length, length, 4] {
            put(&word.to_le_bytes());
        }
    }
    put(&note);
    put(code);
    elf
}
