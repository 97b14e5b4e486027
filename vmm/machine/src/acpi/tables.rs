//! All tables of a guest, in its memory.

use super::table::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};
use super::{dsdt, fadt, madt};

use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::devices::MmioRegion;

/// Where the tables begin: in the BIOS area, which the memory map reserves. The root pointer is first. A
/// kernel that does not get its address searches for it there.
pub const START: u64 = 0xe_0000;
/// End of the BIOS area.
const END: u64 = 0x10_0000;
/// Tables are aligned to this; the FACS has to be.
const ALIGNMENT: u64 = 64;

/// The tables could not be written.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// The tables are too long, because the guest has too many vCPUs.
    #[error("the ACPI tables need {0} bytes, more than fit below 1M: give the guest fewer vCPUs")]
    TooLong(u64),
    /// Guest memory ends before the tables.
    #[error("the ACPI tables do not fit into the guest's memory: give it more")]
    Memory,
}

/// Writes tables for a guest of `cpus` vCPUs with virtio devices at `regions`, and returns
/// the address of the root pointer.
///
/// # Errors
/// If there is no room.
pub fn write(
    memory: &GuestMemoryMmap,
    cpus: u32,
    regions: &[MmioRegion],
) -> Result<GuestAddress, AcpiError> {
    let mut tables = Tables {
        memory,
        next: START + ALIGNMENT,
    };
    let dsdt = tables.put(&bytes(&dsdt::table(regions)))?;
    let facs = tables.put(&bytes(&FACS::new()))?;
    let fadt = tables.put(&bytes(&fadt::table(dsdt, facs)))?;
    let madt = tables.put(madt::table(cpus).as_slice())?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.put(&bytes(&xsdt))?;
    memory
        .write_slice(&bytes(&Rsdp::new(OEM_ID, xsdt)), GuestAddress(START))
        .map_err(|_| AcpiError::Memory)?;
    Ok(GuestAddress(START))
}

/// Writes tables one after the other.
struct Tables<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl Tables<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let at = self.next;
        let end = at + table.len() as u64;
        if end > END {
            return Err(AcpiError::TooLong(end - START));
        }
        self.memory
            .write_slice(table, GuestAddress(at))
            .map_err(|_| AcpiError::Memory)?;
        self.next = end.next_multiple_of(ALIGNMENT);
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).expect("memory")
    }

    fn read(memory: &GuestMemoryMmap, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("in memory");
        bytes
    }

    fn read_table(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
        let head = read(memory, at, 8);
        read(memory, at, u32_at(&head, 4) as usize)
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_kernel_finds_every_table_from_the_root_pointer_and_all_sums_are_zero() {
        let memory = memory();
        let root = write(&memory, 64, &[]).expect("tables");
        let rsdp = read(&memory, root.0, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
        let xsdt = read_table(&memory, u64_at(&rsdp, 24));
        assert_eq!((&xsdt[..4], sum(&xsdt)), (&b"XSDT"[..], 0));
        let fadt = read_table(&memory, u64_at(&xsdt, 36));
        assert_eq!((&fadt[..4], sum(&fadt)), (&b"FACP"[..], 0));
        let madt = read_table(&memory, u64_at(&xsdt, 44));
        assert_eq!((&madt[..4], sum(&madt)), (&b"APIC"[..], 0));
        let dsdt = read_table(&memory, u64_at(&fadt, 140));
        assert_eq!((&dsdt[..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        let facs = read_table(&memory, u64::from(u32_at(&fadt, 36)));
        assert_eq!(&facs[..4], b"FACS");
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        assert!(matches!(
            write(&memory(), 20_000, &[]),
            Err(AcpiError::TooLong(_))
        ));
    }
}
