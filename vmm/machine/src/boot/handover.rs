//! What a kernel gets at its entry.

use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestAddress;

use crate::loader::Initrd;

/// What a kernel gets besides its command line and the memory map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handover {
    /// The header of a bzImage, which the kernel gets back.
    pub header: Option<setup_header>,
    /// The RAM disk.
    pub initrd: Option<Initrd>,
    /// ACPI's root pointer.
    pub rsdp: Option<GuestAddress>,
}
