//! Page tables and segment descriptors.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::addresses::{GDT, GDT_ENTRIES, IDENTITY_GIB, PAGE_DIRECTORIES, PDPT, PML4};
use super::error::BootError;

const PTE_PRESENT: u64 = 1;
const PTE_WRITE: u64 = 1 << 1;
const PTE_HUGE: u64 = 1 << 7;

/// Writes page tables and GDT below the kernel.
///
/// # Errors
/// If memory is too small.
pub fn write_boot_structures(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    write_page_tables(memory)?;
    for (i, descriptor) in gdt().iter().enumerate() {
        memory
            .write_obj(*descriptor, GuestAddress(GDT + 8 * i as u64))
            .map_err(BootError::write)?;
    }
    Ok(())
}

/// Writes an identity map of the first 4 GiB with 2 MiB pages. So a kernel can reach the interrupt
/// controllers before it has tables of its own.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let write = |entry: u64, address: u64| {
        memory
            .write_obj(entry, GuestAddress(address))
            .map_err(BootError::write)
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
