//! FADT: the fixed registers, by which a kernel switches the machine off, resets it, or reads its power button.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use crate::i8042;
use crate::power::{CONTROL, CONTROL_LENGTH, EVENT, EVENT_LENGTH};

/// ACPI's own interrupt.
pub(crate) const SCI: u16 = 9;

// IAPC_BOOT_ARCH.
const HAS_LEGACY_DEVICES: u16 = 1 << 0;
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// The table, with the others at `dsdt` and `facs`.
pub(crate) fn table(dsdt: u64, facs: u64) -> FADT {
    let mut fadt = FADTBuilder::new(
        super::table::OEM_ID,
        super::table::OEM_TABLE_ID,
        super::table::OEM_REVISION,
    )
    .dsdt_64(dsdt)
    // Below 4 GiB, in the field that kernels read first.
    .firmware_ctrl_32(facs as u32)
    .flag(Flags::Wbinvd)
    .flag(Flags::ProcC1)
    // The power button is among the fixed registers, and there is no sleep button: a flag means that there is
    // none in the fixed registers.
    .flag(Flags::SlpButton)
    .flag(Flags::ResetRegSup);
    fadt.sci_int = SCI.into();
    fadt.pm1a_evt_blk = u32::from(EVENT).into();
    fadt.pm1_evt_len = EVENT_LENGTH;
    fadt.pm1a_cnt_blk = u32::from(CONTROL).into();
    fadt.pm1_cnt_len = CONTROL_LENGTH;
    fadt.iapc_boot_arch = (HAS_LEGACY_DEVICES | NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        i8042::COMMAND.into(),
    );
    fadt.reset_value = i8042::RESET;
    fadt.finalize()
}
