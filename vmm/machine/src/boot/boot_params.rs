//! `boot_params`, by which the Linux boot protocol describes the machine to a kernel.

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::addresses::{CMDLINE, ZERO_PAGE};
use super::error::BootError;
use super::handover::Handover;
use super::memory_map::e820;
use crate::loader::Initrd;

const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// "Undefined" loader.
const LOADER_OTHER: u8 = 0xff;

/// Writes the structure.
pub(super) fn write_boot_params(
    memory: &GuestMemoryMmap,
    memory_size: u64,
    cmdline: &str,
    handover: Handover,
) -> Result<(), BootError> {
    let mut params = boot_params {
        hdr: handover.header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            kernel_alignment: 0x100_0000,
            cmdline_size: cmdline.len() as u32,
            ..Default::default()
        }),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    if let Some(Initrd { address, size }) = handover.initrd {
        // Below 4 GiB, where `loader` has put the RAM disk.
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = size as u32;
    }
    params.acpi_rsdp_addr = handover.rsdp.map_or(0, |address| address.0);
    let mut entries = 0;
    for (start, size, kind) in e820(memory_size) {
        params.e820_table[entries] = boot_e820_entry {
            addr: start,
            size,
            r#type: kind,
        };
        entries += 1;
    }
    params.e820_entries = entries as u8;
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(ZERO_PAGE)),
        memory,
    )
    .map_err(BootError::write)
}
