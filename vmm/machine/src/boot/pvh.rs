//! `hvm_start_info`, which describes the machine to a kernel with a PVH entry. EBX points to the structure.
//!
//! Source: Xen's "x86/HVM direct boot ABI" (`docs/misc/pvh.pandoc`) and
//! `xen/include/public/arch-x86/hvm/start_info.h`, version 1 of the structure: 32-bit protected mode
//! without paging, flat segments, interrupts off. Linux, FreeBSD and others have such an entry.

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::addresses::{CMDLINE, STACK_TOP, START_INFO};
use super::error::BootError;
use super::handover::Handover;
use super::memory_map::e820;
use crate::loader::Initrd;

/// The only module, the RAM disk.
const MODULES: u64 = START_INFO + 0x100;
const MEMORY_MAP: u64 = START_INFO + 0x200;
/// Most entries of the memory map: two below 1M, two pieces of RAM above.
const MAX_ENTRIES: u64 = 4;

const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;

const _: () = assert!(START_INFO + size_of::<hvm_start_info>() as u64 <= MODULES);
const _: () = assert!(MODULES + size_of::<hvm_modlist_entry>() as u64 <= MEMORY_MAP);
const _: () = assert!(
    MEMORY_MAP + MAX_ENTRIES * size_of::<hvm_memmap_table_entry>() as u64 <= STACK_TOP - 0x1000
);

/// Writes the structure, the memory map and the module.
pub(crate) fn write_start_info(
    memory: &GuestMemoryMmap,
    memory_size: u64,
    handover: Handover,
) -> Result<(), BootError> {
    // The types of the entries are those of e820.
    let map: Vec<_> = e820(memory_size)
        .into_iter()
        .map(|(addr, size, type_)| hvm_memmap_table_entry {
            addr,
            size,
            type_,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(handover.initrd.is_some()),
        modlist_paddr: handover.initrd.map_or(0, |_| MODULES),
        cmdline_paddr: CMDLINE,
        rsdp_paddr: handover.rsdp.map_or(0, |address| address.0),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(MEMORY_MAP));
    if let Some(Initrd { address, size }) = handover.initrd {
        let module = hvm_modlist_entry {
            paddr: address,
            size,
            ..Default::default()
        };
        params.set_modules(&[module], GuestAddress(MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(BootError::write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn written(handover: Handover) -> (GuestMemoryMmap, hvm_start_info) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).expect("memory");
        write_start_info(&memory, 5 << 30, handover).expect("start info");
        let info = memory
            .read_obj(GuestAddress(START_INFO))
            .expect("in memory");
        (memory, info)
    }

    #[test]
    fn a_kernel_finds_its_ram_disk_and_the_root_pointer() {
        let (memory, info) = written(Handover {
            initrd: Some(Initrd {
                address: 0x123_4000,
                size: 77,
            }),
            rsdp: Some(GuestAddress(0xe_0000)),
            ..Handover::default()
        });
        assert_eq!((info.magic, info.version), (MAGIC, VERSION));
        assert_eq!((info.cmdline_paddr, info.rsdp_paddr), (CMDLINE, 0xe_0000));
        assert_eq!(info.nr_modules, 1);
        let module: hvm_modlist_entry = memory
            .read_obj(GuestAddress(info.modlist_paddr))
            .expect("in memory");
        assert_eq!((module.paddr, module.size), (0x123_4000, 77));
    }

    #[test]
    fn without_a_ram_disk_there_is_no_module() {
        let (_, info) = written(Handover::default());
        assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0));
    }

    #[test]
    fn the_memory_map_is_that_of_the_other_protocol() {
        let (memory, info) = written(Handover::default());
        assert_eq!(u64::from(info.memmap_entries), MAX_ENTRIES);
        let read: Vec<_> = (0..MAX_ENTRIES)
            .map(|n| {
                let entry: hvm_memmap_table_entry = memory
                    .read_obj(GuestAddress(info.memmap_paddr + n * 24))
                    .expect("in memory");
                (entry.addr, entry.size, entry.type_)
            })
            .collect();
        assert_eq!(read, e820(5 << 30));
    }
}
