//! The ELF file of a kernel (`vmlinux`).

use object::LittleEndian;
use object::elf::{FileHeader64, PF_X, PT_LOAD, PT_NOTE, ProgramHeader64, SHT_SYMTAB, Sym64};
use object::pod;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::read::{self, ReadRef};

use super::symbols::Symbols;
use crate::inferred::{Finding, Scan};

/// What is scanned at a time, bytes.
const SLICE: usize = 64 << 10;
/// The owner of Xen's notes, and the type of that with the PVH entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const XEN: &[u8] = b"Xen";
const PVH_ENTRY: u32 = 18;

/// So many bytes of a symbol's name are read; those that matter are shorter.
const MAX_NAME: usize = 32;

type Header = FileHeader64<LittleEndian>;

/// The ELF file of a kernel in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vmlinux<'a> {
    bytes: &'a [u8],
    segments: &'a [ProgramHeader64<LittleEndian>],
}

impl<'a> Vmlinux<'a> {
    /// The kernel in `bytes`.
    ///
    /// # Errors
    /// If `bytes` are no 64-bit ELF file.
    pub(super) fn parse(bytes: &'a [u8]) -> read::Result<Self> {
        let header = Header::parse(bytes)?;
        let segments = header.program_headers(header.endian()?, bytes)?;
        Ok(Self { bytes, segments })
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = &'a ProgramHeader64<LittleEndian>> {
        let segments = self.segments.iter();
        segments.filter(move |segment| segment.p_type(LittleEndian) == kind)
    }

    /// The physical address at which PVH enters the kernel.
    pub(super) fn pvh_entry(&self) -> Option<u64> {
        self.segments(PT_NOTE)
            .filter_map(|segment| segment.notes(LittleEndian, self.bytes).ok()?)
            .flat_map(|mut notes| std::iter::from_fn(move || notes.next().ok()?))
            .find(|note| note.name() == XEN && note.n_type(LittleEndian) == PVH_ENTRY)
            .and_then(|note| match *note.desc() {
                [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d]).into()),
                _ => Some(u64::from_le_bytes(*note.desc().first_chunk()?)),
            })
    }

    /// The variable in which the kernel's text counts, as the kernel was linked.
    pub(super) fn scan(&self) -> Finding {
        let mut scan = Scan::default();
        let is_text = |segment: &&ProgramHeader64<_>| segment.p_flags(LittleEndian) & PF_X != 0;
        for segment in self.segments(PT_LOAD).filter(is_text) {
            let mut address = segment.p_vaddr(LittleEndian);
            let text = segment.data(LittleEndian, self.bytes).unwrap_or_default();
            for slice in text.chunks(SLICE) {
                scan.feed(address, slice);
                address = address.wrapping_add(slice.len() as u64);
            }
        }
        scan.finding()
    }
}

/// The symbols of the ELF file `data`; `None` if it has none.
///
/// # Errors
/// If it is no 64-bit ELF file, or cut short.
pub(super) fn symbols<'d>(data: impl ReadRef<'d>) -> read::Result<Option<Symbols>> {
    let header = Header::parse(data)?;
    let endian: LittleEndian = header.endian()?;
    let sections = header.section_headers(endian, data)?;
    let is_table =
        |section: &&object::elf::SectionHeader64<_>| section.sh_type(endian) == SHT_SYMTAB;
    let Some(table) = sections.iter().find(is_table) else {
        return Ok(None);
    };
    let Some(names) = sections.get(table.sh_link(endian) as usize) else {
        return Ok(None);
    };
    let names = names.data(endian, data)?;
    let entries = table.data(endian, data)?;
    let entries = entries.get(..entries.len() - entries.len() % size_of::<Sym64<LittleEndian>>());
    let entries = pod::slice_from_all_bytes::<Sym64<LittleEndian>>(entries.unwrap_or_default());
    let mut symbols = Symbols::default();
    for entry in entries.unwrap_or_default() {
        let name = names
            .get(entry.st_name(endian) as usize..)
            .unwrap_or_default();
        let name = &name[..name.len().min(MAX_NAME)];
        let name = name.split(|&byte| byte == 0).next();
        symbols.add(name.unwrap_or_default(), entry.st_value(endian));
    }
    Ok(Some(symbols))
}
