//! The registers of a vCPU at the kernel's entry.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use super::addresses::{GDT, GDT_ENTRIES, PML4, STACK_TOP, START_INFO, ZERO_PAGE};
use crate::loader::Entry;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const SELECTOR_CODE_32: u16 = 0x08;
const SELECTOR_CODE: u16 = 0x10;
const SELECTOR_DATA: u16 = 0x18;
const SELECTOR_TSS: u16 = 0x20;

fn code_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: SELECTOR_CODE,
        type_: 0xb,
        present: 1,
        dpl: 0,
        db: 0,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    }
}

fn code_segment_32() -> kvm_segment {
    kvm_segment {
        selector: SELECTOR_CODE_32,
        db: 1,
        l: 0,
        ..code_segment()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: SELECTOR_DATA,
        type_: 0x3,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}

fn task_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0x67,
        selector: SELECTOR_TSS,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// Turns the reset state `sregs` into that of `entry`, at CPL 0 on the tables of
/// [`write_boot_structures`](super::write_boot_structures).
pub fn enter(sregs: &mut kvm_sregs, entry: Entry) {
    load_segments(sregs);
    match entry {
        Entry::Long(_) => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = PML4;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
        Entry::Pvh(_) => {
            sregs.cs = code_segment_32();
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr3 = 0;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
    }
}

fn load_segments(sregs: &mut kvm_sregs) {
    sregs.cs = code_segment();
    let data = data_segment();
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task_segment();
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (GDT_ENTRIES * 8 - 1) as u16;
    // No IDT: a fault before the kernel has its own IDT is a triple fault, which is reported.
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
}

/// General registers at the kernel's entry.
#[must_use]
pub fn entry_registers(entry: Entry) -> kvm_regs {
    let common = kvm_regs {
        rflags: 2,
        rip: entry.address().0,
        rsp: STACK_TOP,
        rbp: STACK_TOP,
        ..Default::default()
    };
    match entry {
        Entry::Long(_) => kvm_regs {
            rsi: ZERO_PAGE,
            ..common
        },
        Entry::Pvh(_) => kvm_regs {
            rbx: START_INFO,
            ..common
        },
    }
}
