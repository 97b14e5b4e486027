//! Where the boot structures are in guest memory.

use baton_config::MAX_CMDLINE;

pub(super) const GDT: u64 = 0x500;
pub(super) const ZERO_PAGE: u64 = 0x7000;
/// PVH's start info, in the place of `boot_params`, which that protocol does not have.
pub(super) const START_INFO: u64 = ZERO_PAGE;
pub(super) const STACK_TOP: u64 = 0x8ff0;
pub(super) const PML4: u64 = 0x9000;
pub(super) const PDPT: u64 = 0xa000;
/// Four page directories, 1 GiB each.
pub(super) const PAGE_DIRECTORIES: u64 = 0xb000;
pub(super) const IDENTITY_GIB: u64 = 4;
pub(super) const CMDLINE: u64 = 0x2_0000;
/// End of conventional memory. A BIOS would keep its data area above.
pub(super) const LOW_RAM_END: u64 = 0x9_fc00;

// No structure overlaps the next one.
const _: () = assert!(GDT + 8 * GDT_ENTRIES as u64 <= ZERO_PAGE);
const _: () = assert!(PAGE_DIRECTORIES + IDENTITY_GIB * 0x1000 <= CMDLINE);
const _: () = assert!(CMDLINE + (MAX_CMDLINE as u64) < LOW_RAM_END);

pub(super) const GDT_ENTRIES: usize = 6;
