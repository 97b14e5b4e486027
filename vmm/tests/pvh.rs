//! Kernels with a PVH note, entered in 32-bit protected mode.

mod common;

use std::arch::global_asm;

use common::{baton, file};
use guest_tests::testdev;

// Prints the command line and the RAM disk, and ends with 0; with 9 if it finds no start info or
// paging on.
global_asm!(
    ".pushsection .rodata.baton_pvh_guest, \"a\"",
    ".code32",
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

const CODE: u32 = 0x10_0000;
/// What stands in the ELF header: an address in the kernel's half, as FreeBSD has it.
const VIRTUAL: u64 = 0xffff_ffff_8020_0000;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// ELF header and two program headers.
const HEADERS: u64 = 64 + 2 * 56;

/// An ELF file with a note of this type by `owner`, before its code.
fn image(owner: &[u8; 4], kind: u32) -> Vec<u8> {
    let (from, to) = (&raw const baton_pvh_guest, &raw const baton_pvh_guest_end);
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    let mut note = Vec::new();
    for word in [4, 4, kind] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(owner);
    note.extend_from_slice(&CODE.to_le_bytes());

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    put(&VIRTUAL.to_le_bytes());
    put(&64u64.to_le_bytes()); // program headers
    put(&[0; 12]); // no sections, no flags
    put(&[64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    let segments = [
        (PT_NOTE, HEADERS, 0, note.len() as u64),
        (
            PT_LOAD,
            HEADERS + note.len() as u64,
            CODE.into(),
            code.len() as u64,
        ),
    ];
    for (kind, offset, address, length) in segments {
        put(&kind.to_le_bytes());
        put(&7u32.to_le_bytes()); // rwx
        for word in [offset, address, address, length, length, 4] {
            put(&word.to_le_bytes());
        }
    }
    put(&note);
    put(code);
    elf
}

#[test]
fn a_kernel_with_a_pvh_note_finds_its_command_line_and_its_ram_disk() {
    let kernel = file("pvh.elf", &image(b"Xen\0", 18));
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
        ("owner.elf", image(b"GNU\0", 18)),
        ("kind.elf", image(b"Xen\0", 3)),
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
