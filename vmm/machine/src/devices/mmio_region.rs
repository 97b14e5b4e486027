//! Where a device's registers are in guest memory, and its IRQ.

use crate::layout::MMIO_HOLE_START;

/// The most devices that a guest can have: so many inputs of the I/O APIC are not used otherwise.
pub const MAX_DEVICES: usize = 8;
/// Guest address of the first region; the others follow.
const FIRST: u64 = MMIO_HOLE_START + 0x1000_0000;
/// Length of a region, bytes.
const LENGTH: u64 = 0x1000;
/// I/O APIC input of the first region; those below belong to a PC's legacy devices.
const FIRST_IRQ: u32 = 16;

/// The addresses at which a vCPU reaches one device, and the device's IRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioRegion {
    /// First guest address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Input of the I/O APIC; edge-triggered.
    pub irq: u32,
}

impl MmioRegion {
    /// The region of the device in `slot`, counted from 0.
    pub(super) fn of_slot(slot: u32) -> Self {
        Self {
            base: FIRST + u64::from(slot) * LENGTH,
            length: LENGTH,
            irq: FIRST_IRQ + slot,
        }
    }

    /// The offset of `address` in the region; `None` outside.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        address
            .checked_sub(self.base)
            .filter(|offset| *offset < self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regions_of_two_devices_share_no_address() {
        let (first, second) = (MmioRegion::of_slot(0), MmioRegion::of_slot(1));
        for (address, offsets) in [
            (FIRST - 1, (None, None)),
            (FIRST, (Some(0), None)),
            (FIRST + LENGTH - 1, (Some(LENGTH - 1), None)),
            (FIRST + LENGTH, (None, Some(0))),
            (0, (None, None)),
            (u64::MAX, (None, None)),
        ] {
            assert_eq!((first.offset(address), second.offset(address)), offsets);
        }
    }
}
