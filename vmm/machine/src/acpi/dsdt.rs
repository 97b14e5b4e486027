//! DSDT: the devices that a kernel cannot find otherwise, and the value that means "off".

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate,
};

use crate::devices::MmioRegion;
use crate::power::SLEEP_TYPE_OFF;
use crate::serial;

/// The table as bytes.
pub(crate) struct Dsdt(Vec<u8>);

impl Aml for Dsdt {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// The table with COM1 and the virtio devices at `regions`.
pub(crate) fn table(regions: &[MmioRegion]) -> Dsdt {
    let mut dsdt = super::table::table(*b"DSDT", 36, 6);
    dsdt.append_slice(&com1());
    for (number, region) in (0..).zip(regions) {
        dsdt.append_slice(&virtio(number, region));
    }
    dsdt.append_slice(&super::table::bytes(&Name::new(
        "_S5_".into(),
        &Package::new(vec![&SLEEP_TYPE_OFF]),
    )));
    dsdt.update_checksum();
    Dsdt(dsdt.as_slice().to_vec())
}

fn com1() -> Vec<u8> {
    super::table::bytes(&Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0u32),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Interrupt::new(true, true, false, false, serial::IRQ),
                    &IO::new(serial::FIRST_PORT, serial::FIRST_PORT, 0, 8),
                ]),
            ),
        ],
    ))
}

/// A virtio-mmio device, under the id by which Linux's driver is known.
fn virtio(number: u32, region: &MmioRegion) -> Vec<u8> {
    super::table::bytes(&Device::new(
        format!("_SB_.VR{number:02}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            // The device reads what is in the processors' caches.
            &Name::new("_CCA".into(), &1u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, region.base as u32, region.length as u32),
                    &Interrupt::new(true, true, false, false, region.irq),
                ]),
            ),
        ],
    ))
}
