//! MADT: processors and interrupt controllers.

use acpi_tables::sdt::Sdt;

/// Where every PC has its local APICs.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Where KVM's I/O APIC is.
const IO_APIC: u32 = 0xfec0_0000;
/// Length of the header with the local APIC's address and the flags.
const HEAD: u32 = 44;
const FLAG_HAS_8259: u32 = 1;
const PROCESSOR_ENABLED: u32 = 1;
/// All processors, in a structure that names one.
const ALL: u8 = 0xff;

/// The table with processors 0 to `cpus` - 1, whose APIC ids are their numbers, and one I/O APIC for all
/// interrupts.
pub(crate) fn table(cpus: u32) -> Sdt {
    let mut madt = super::table::table(*b"APIC", HEAD, 4);
    madt.write_u32(36, LOCAL_APIC);
    madt.write_u32(40, FLAG_HAS_8259);
    for index in 0..cpus {
        match u8::try_from(index) {
            Ok(id) if id < ALL => {
                madt.append_slice(&[0, 8, id, id]);
                madt.append_slice(&PROCESSOR_ENABLED.to_le_bytes());
            }
            // Local x2APIC: the ids of a local APIC end at 254.
            _ => {
                madt.append_slice(&[9, 16, 0, 0]);
                for word in [index, PROCESSOR_ENABLED, index] {
                    madt.append_slice(&word.to_le_bytes());
                }
            }
        }
    }
    // The I/O APIC's id may be any: kernels use its address.
    madt.append_slice(&[1, 12, 0, 0]);
    for word in [IO_APIC, 0] {
        madt.append_slice(&word.to_le_bytes());
    }
    // The PIT, ISA interrupt 0, arrives at pin 2.
    madt.append_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    // The interrupt of ACPI itself is level-triggered and active high.
    let sci = super::fadt::SCI as u8;
    madt.append_slice(&[2, 10, 0, sci, sci, 0, 0, 0, 0x0d, 0]);
    // LINT1 of all processors is the NMI.
    madt.append_slice(&[4, 6, ALL, 0, 0, 1]);
    madt.update_checksum();
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(cpus: u32) -> usize {
        let table = table(cpus);
        let mut rest = &table.as_slice()[HEAD as usize..];
        let mut count = 0;
        while let [kind, length, ..] = *rest {
            count += usize::from(kind == 0 || kind == 9);
            rest = &rest[usize::from(length)..];
        }
        count
    }

    #[test]
    fn every_vcpu_is_a_processor() {
        for cpus in [1, 2, 64, 255, 300] {
            assert_eq!(processors(cpus), cpus as usize);
        }
    }
}
