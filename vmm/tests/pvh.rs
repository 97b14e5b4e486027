//! Kernels with a PVH note, entered in 32-bit protected mode.

mod common;

use std::arch::global_asm;

use baton_abi::testdev;

use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::{baton, file};

// A guest that prints its command line and its RAM disk. It ends with 0, or with 9 if there is no start info or
// paging is on.
global_asm!(
    ".pushsection .rodata.baton_pvh_guest, \"a\"",
    ".code32",
    ".globl baton_pvh_guest",
    "baton_pvh_guest:",
    "cmp dword ptr [ebx], 0x336ec578",
    "jne 3f",
    "mov eax, cr0",
    "test eax, eax", // bit 31 is paging
    "js 3f",
    // The segments are in the GDT, too.
    "mov eax, ds",
    "mov ds, eax",
    "mov edx, {console}",
    "mov esi, [ebx + 24]",
    "2:",
    "lodsb",
    "test al, al",
    "jz 4f",
    "out dx, al",
    "jmp 2b",
    "4:",
    "mov edi, [ebx + 16]",
    "mov esi, [edi]",
    "mov ecx, [edi + 8]",
    "rep outsb",
    "xor eax, eax",
    "mov edx, {exit}",
    "out dx, eax",
    "3:",
    "mov eax, 9",
    "mov edx, {exit}",
    "out dx, eax",
    ".globl baton_pvh_guest_end",
    "baton_pvh_guest_end:",
    ".code64",
    ".popsection",
    console = const testdev::PORT_CONSOLE,
    exit = const testdev::PORT_EXIT,
);

unsafe extern "C" {
    static baton_pvh_guest: u8;
    static baton_pvh_guest_end: u8;
}

/// The guest above with a note of this kind by `owner`.
fn image(owner: &[u8; 4], kind: u32) -> Vec<u8> {
    let (from, to) = (&raw const baton_pvh_guest, &raw const baton_pvh_guest_end);
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    elf(code, owner, kind)
}

#[test]
fn a_kernel_with_a_pvh_note_finds_its_command_line_and_its_ram_disk() {
    let kernel = file("pvh.elf", &image(OWNER, PHYS32_ENTRY));
    let initrd = file("pvh.initrd", b" and a RAM disk\n");
    for sched in ["baton", "host"] {
        let ran = baton(&[
            "run",
            "--kernel",
            &kernel.to_string_lossy(),
            "--initrd",
            &initrd.to_string_lossy(),
            "--memory",
            "16M",
            "--cmdline",
            "by PVH",
            "--sched",
            sched,
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("by PVH and a RAM disk"), "{ran:?}");
    }
}

#[test]
fn a_kernel_that_has_neither_entry_is_refused_in_one_sentence() {
    for (name, image) in [
        ("owner.elf", image(b"GNU\0", PHYS32_ENTRY)),
        ("kind.elf", image(OWNER, 3)),
    ] {
        let kernel = file(name, &image);
        let ran = baton(&["run", "--kernel", &kernel.to_string_lossy()]);
        assert!(
            ran.one_sentence()
                .ends_with("its 64-bit entry 0xffffffff80200000 (it has no PVH entry) is not in what it loads above 1M"),
            "{ran:?}"
        );
    }
}
