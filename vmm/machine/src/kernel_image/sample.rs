//! A small kernel for tests, which can be loaded, counts, and has a PVH note, symbols and a configuration.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Where the kernel counts.
pub(super) const COUNT: u64 = 0x35008;
/// Where PVH enters it.
pub(super) const PVH: u32 = 0x10_0040;
/// Where system calls enter it.
pub(super) const SYSCALL: u64 = TEXT + 0x80;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const PHYSICAL: u64 = 0x10_0000;
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const TEXT_AT: usize = HEADER + 2 * SEGMENT;

/// A `vmlinux` that has `config` as its configuration, and `marks` in its text.
pub(super) fn vmlinux(config: &str, marks: &[&[u8]]) -> Vec<u8> {
    let text = text(config, marks);
    let note = note();
    let names = b"\0pcpu_hot\0entry_SYSCALL_64\0";
    let symbols = [symbol(0, 0), symbol(1, COUNT - 8), symbol(10, SYSCALL)].concat();
    let notes_at = TEXT_AT + text.len();
    let symbols_at = notes_at + note.len();
    let names_at = symbols_at + symbols.len();
    let sections_at = names_at + names.len();
    [
        header(sections_at),
        segment(1, 5, TEXT_AT, text.len()),
        segment(4, 4, notes_at, note.len()),
        text,
        note,
        symbols.clone(),
        names.to_vec(),
        section(0, 0, 0, 0, 0),
        section(2, symbols_at, symbols.len(), 2, 24),
        section(3, names_at, names.len(), 0, 0),
    ]
    .concat()
}

fn text(config: &str, marks: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::new();
    for form in [0x05, 0x0d].repeat(40) {
        text.extend([0x65, 0xff, form]);
        let after = TEXT + text.len() as u64 + 4;
        text.extend((COUNT.wrapping_sub(after) as i32).to_le_bytes());
    }
    text.extend(b"Linux version %s (%s)\0Linux version 6.12.1-sample (builder)\0");
    text.extend(marks.concat());
    text.extend(b"IKCFG_ST");
    text.extend(gzip(config.as_bytes()));
    text.extend(b"IKCFG_ED");
    text.resize(text.len().next_multiple_of(8), 0);
    text
}

fn header(sections_at: usize) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    header.extend(PHYSICAL.to_le_bytes());
    header.extend((HEADER as u64).to_le_bytes());
    header.extend((sections_at as u64).to_le_bytes());
    header.extend([0; 4]);
    for half in [HEADER, SEGMENT, 2, SECTION, 3, 0] {
        header.extend((half as u16).to_le_bytes());
    }
    header
}

fn segment(kind: u32, flags: u32, at: usize, size: usize) -> Vec<u8> {
    let words = [at as u64, TEXT, PHYSICAL, size as u64, size as u64, 8];
    let fields = words.iter().flat_map(|word| word.to_le_bytes());
    [kind, flags]
        .iter()
        .flat_map(|half| half.to_le_bytes())
        .chain(fields)
        .collect()
}

fn section(kind: u32, at: usize, size: usize, link: u32, entry: u64) -> Vec<u8> {
    let mut section = [0, kind].map(u32::to_le_bytes).concat();
    section.extend([0; 16]);
    section.extend((at as u64).to_le_bytes());
    section.extend((size as u64).to_le_bytes());
    section.extend([link, 0].map(u32::to_le_bytes).concat());
    section.extend(8u64.to_le_bytes());
    section.extend(entry.to_le_bytes());
    section
}

fn symbol(name: u32, value: u64) -> Vec<u8> {
    let mut symbol = name.to_le_bytes().to_vec();
    symbol.extend([0; 4]);
    symbol.extend(value.to_le_bytes());
    symbol.extend([0; 8]);
    symbol
}

fn note() -> Vec<u8> {
    let mut note = [4u32, 4, 18].map(u32::to_le_bytes).concat();
    note.extend(b"Xen\0");
    note.extend(PVH.to_le_bytes());
    note
}

/// A bzImage with `payload`.
pub(super) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x400 + 0x400];
    image[0x1f1] = 1;
    let paragraphs = (0x400 + payload.len()).div_ceil(16) as u32;
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x211] = 1;
    image[0x236] = 1;
    image[0x248..0x24c].copy_from_slice(&0x400u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image[0x258..0x260].copy_from_slice(&PHYSICAL.to_le_bytes());
    image[0x300..0x316].copy_from_slice(b"6.12.2-header (builder");
    image.extend(payload);
    image.resize(image.len().next_multiple_of(16), 0);
    image
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// One block of the legacy format.
pub(super) fn lz4(bytes: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(bytes);
    let length = (block.len() as u32).to_le_bytes();
    [&[0x02, 0x21, 0x4c, 0x18], &length[..], &block].concat()
}
