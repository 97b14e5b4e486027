//! A kernel in guest memory.

use std::fmt;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestAddress;

/// Where and by which protocol a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The Linux 64-bit boot protocol: in long mode.
    Long(GuestAddress),
    /// PVH: in 32-bit protected mode without paging.
    Pvh(GuestAddress),
}

impl Entry {
    /// Guest-physical address of the kernel's first instruction.
    #[must_use]
    pub fn address(self) -> GuestAddress {
        match self {
            Self::Long(address) | Self::Pvh(address) => address,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long(address) => write!(f, "64-bit entry {:#x} (it has no PVH entry)", address.0),
            Self::Pvh(address) => write!(f, "PVH entry {:#x}", address.0),
        }
    }
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Where the kernel is entered.
    pub entry: Entry,
    /// First address after all that the kernel needs before it has its own memory management.
    pub end: u64,
    /// The header of a bzImage.
    pub header: Option<setup_header>,
}
