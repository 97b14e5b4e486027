//! What all tables have in common.

use acpi_tables::{Aml, sdt::Sdt};

pub(super) const OEM_ID: [u8; 6] = *b"BATON ";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"BATONVMM";
pub(super) const OEM_REVISION: u32 = 1;

/// An empty table with room for `length` bytes.
pub(super) fn table(signature: [u8; 4], length: u32, revision: u8) -> Sdt {
    Sdt::new(
        signature,
        length,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    )
}

pub(super) fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
