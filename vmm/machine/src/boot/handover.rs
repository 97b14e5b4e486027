//! The state in which a kernel starts: that of the Linux/x86 64-bit boot protocol, or of PVH
//! (`pvh.rs`).
//!
//! Source: `Documentation/arch/x86/boot.rst` of Linux, "64-bit Boot Protocol": long mode with
//! paging, identity-mapped; `__BOOT_CS` (0x10) and `__BOOT_DS` (0x18) flat; interrupts off; RSI
//! points to the `boot_params` page.

use baton_config::MAX_CMDLINE;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::load_cmdline;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::loader::{Entry, Initrd};
use crate::memory;

/// Lowest address at which a kernel may be loaded; below are the boot structures and ACPI's tables.
pub const KERNEL_START: u64 = 0x10_0000;

const GDT: u64 = 0x500;
pub(crate) const ZERO_PAGE: u64 = 0x7000;
pub(crate) const STACK_TOP: u64 = 0x8ff0;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
/// Four page directories, 1 GiB each.
const PAGE_DIRECTORIES: u64 = 0xb000;
const IDENTITY_GIB: u64 = 4;
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// End of conventional memory; a BIOS would keep its data area above.
const LOW_RAM_END: u64 = 0x9_fc00;

// No structure reaches the next one.
const _: () = assert!(GDT + 8 * GDT_ENTRIES as u64 <= ZERO_PAGE);
const _: () = assert!(PAGE_DIRECTORIES + IDENTITY_GIB * 0x1000 <= CMDLINE);
const _: () = assert!(CMDLINE + (MAX_CMDLINE as u64) < LOW_RAM_END);

const GDT_ENTRIES: usize = 6;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// "Undefined" loader.
const LOADER_OTHER: u8 = 0xff;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PTE_PRESENT: u64 = 1;
const PTE_WRITE: u64 = 1 << 1;
const PTE_HUGE: u64 = 1 << 7;

const SELECTOR_CODE_32: u16 = 0x08;
const SELECTOR_CODE: u16 = 0x10;
const SELECTOR_DATA: u16 = 0x18;
const SELECTOR_TSS: u16 = 0x20;

/// Boot structures that do not fit into guest memory.
#[derive(Debug, Error)]
pub enum BootError {
    /// A write to guest memory failed.
    #[error("cannot write the boot structures into guest memory: {0}")]
    Write(String),
    /// The command line has characters that a kernel cannot take.
    #[error("the kernel command line is not usable: {0}")]
    Cmdline(String),
}

pub(crate) fn write_error(error: impl std::fmt::Display) -> BootError {
    BootError::Write(error.to_string())
}

/// What a kernel is told beside its command line and the memory map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handover {
    /// The header of a bzImage, to be handed back to it.
    pub header: Option<setup_header>,
    /// The RAM disk.
    pub initrd: Option<Initrd>,
    /// ACPI's root pointer.
    pub rsdp: Option<GuestAddress>,
}

/// Writes page tables and GDT below [`KERNEL_START`].
///
/// # Errors
/// If memory is too small.
pub fn write_boot_structures(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    write_page_tables(memory)?;
    for (i, descriptor) in gdt().iter().enumerate() {
        memory
            .write_obj(*descriptor, GuestAddress(GDT + 8 * i as u64))
            .map_err(write_error)?;
    }
    Ok(())
}

/// Writes the command line and what the protocol of `entry` has for the rest: `boot_params`, or
/// PVH's start info.
///
/// # Errors
/// If memory is too small or the command line is not printable ASCII or too long for the kernel.
pub fn hand_over(
    memory: &GuestMemoryMmap,
    memory_size: u64,
    cmdline: &str,
    entry: Entry,
    handover: Handover,
) -> Result<(), BootError> {
    let cmdline = cmdline.trim();
    write_cmdline(memory, cmdline, handover)?;
    match entry {
        Entry::Long(_) => write_boot_params(memory, memory_size, cmdline, handover),
        Entry::Pvh(_) => crate::boot::pvh::write_start_info(memory, memory_size, handover),
    }
}

fn write_cmdline(
    memory: &GuestMemoryMmap,
    cmdline: &str,
    handover: Handover,
) -> Result<(), BootError> {
    if let Some(header) = handover.header
        && cmdline.len() as u64 > u64::from(header.cmdline_size)
    {
        return Err(BootError::Cmdline(format!(
            "it has {} bytes, and this kernel takes {}",
            cmdline.len(),
            { header.cmdline_size }
        )));
    }
    let mut line =
        Cmdline::new(MAX_CMDLINE + 1).map_err(|error| BootError::Cmdline(error.to_string()))?;
    if !cmdline.is_empty() {
        line.insert_str(cmdline)
            .map_err(|error| BootError::Cmdline(error.to_string()))?;
    }
    load_cmdline(memory, GuestAddress(CMDLINE), &line)
        .map_err(|error| BootError::Cmdline(error.to_string()))
}

fn write_boot_params(
    memory: &GuestMemoryMmap,
    memory_size: u64,
    cmdline: &str,
    handover: Handover,
) -> Result<(), BootError> {
    let mut params = boot_params {
        hdr: handover.header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: 0x100_0000,
            cmdline_size: cmdline.len() as u32,
            ..Default::default()
        }),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    if let Some(Initrd { address, size }) = handover.initrd {
        // Below 4 GiB: `loader` puts it there.
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = size as u32;
    }
    params.acpi_rsdp_addr = handover.rsdp.map_or(0, |address| address.0);
    let mut entries = 0;
    for (start, size, kind) in e820(memory_size) {
        params.e820_table[entries] = boot_e820_entry {
            addr: start,
            size,
            r#type: kind,
        };
        entries += 1;
    }
    params.e820_entries = entries as u8;
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(ZERO_PAGE)),
        memory,
    )
    .map_err(write_error)
}

/// The memory map handed to the kernel: start, size, type.
pub(crate) fn e820(memory_size: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, LOW_RAM_END, E820_RAM),
        (LOW_RAM_END, KERNEL_START - LOW_RAM_END, E820_RESERVED),
    ];
    for (start, size) in memory::layout(memory_size) {
        let begin = start.max(KERNEL_START);
        map.push((begin, start + size - begin, E820_RAM));
    }
    map
}

/// Identity map of the first 4 GiB with 2 MiB pages, so that a kernel can reach the interrupt
/// controllers before it has its own tables.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let write = |entry: u64, address: u64| {
        memory
            .write_obj(entry, GuestAddress(address))
            .map_err(write_error)
    };
    write(PDPT | PTE_PRESENT | PTE_WRITE, PML4)?;
    for gib in 0..IDENTITY_GIB {
        let directory = PAGE_DIRECTORIES + gib * 0x1000;
        write(directory | PTE_PRESENT | PTE_WRITE, PDPT + gib * 8)?;
        for page in 0..512 {
            let address = (gib << 30) | (page << 21);
            write(
                address | PTE_PRESENT | PTE_WRITE | PTE_HUGE,
                directory + page * 8,
            )?;
        }
    }
    Ok(())
}

/// Null, 32-bit code, code, data, TSS (two entries).
fn gdt() -> [u64; GDT_ENTRIES] {
    [
        0,
        0x00cf_9b00_0000_ffff,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_0000_0067,
        0,
    ]
}

fn code_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: SELECTOR_CODE,
        type_: 0xb,
        present: 1,
        dpl: 0,
        db: 0,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    }
}

fn code_segment_32() -> kvm_segment {
    kvm_segment {
        selector: SELECTOR_CODE_32,
        db: 1,
        l: 0,
        ..code_segment()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: SELECTOR_DATA,
        type_: 0x3,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}

fn task_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0x67,
        selector: SELECTOR_TSS,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// Turns the reset state `sregs` into that of `entry`, at CPL 0 on the tables that
/// [`write_boot_structures`] wrote.
pub fn enter(sregs: &mut kvm_sregs, entry: Entry) {
    load_segments(sregs);
    match entry {
        Entry::Long(_) => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = PML4;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
        Entry::Pvh(_) => {
            sregs.cs = code_segment_32();
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr3 = 0;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
    }
}

fn load_segments(sregs: &mut kvm_sregs) {
    sregs.cs = code_segment();
    let data = data_segment();
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task_segment();
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (GDT_ENTRIES * 8 - 1) as u16;
    // No IDT: a fault before the kernel has its own is a triple fault, which names itself.
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
}

/// General registers at the kernel's entry.
#[must_use]
pub fn entry_registers(entry: Entry) -> kvm_regs {
    let common = kvm_regs {
        rflags: 2,
        rip: entry.address().0,
        rsp: STACK_TOP,
        rbp: STACK_TOP,
        ..Default::default()
    };
    match entry {
        Entry::Long(_) => kvm_regs {
            rsi: ZERO_PAGE,
            ..common
        },
        Entry::Pvh(_) => kvm_regs {
            rbx: crate::boot::pvh::START_INFO,
            ..common
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_covers_all_ram_and_none_of_the_hole() {
        for size in [4u64 << 20, 64 << 20, 3 << 30, 5 << 30] {
            let ram: u64 = e820(size)
                .iter()
                .filter(|(.., kind)| *kind == E820_RAM)
                .map(|(_, size, _)| size)
                .sum();
            assert_eq!(ram, size - (KERNEL_START - LOW_RAM_END));
        }
    }
}
