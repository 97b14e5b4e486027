//! A guest of one page of code: it halts, counts its interrupts, and sends interrupts on demand.

use std::arch::global_asm;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use baton_config::{GuestConfig, KernelSource};
use baton_machine::{Guest, Vcpu, kvm};
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_msi, kvm_regs};
use vm_memory::{Bytes, GuestAddress};

// The halting vCPU (vCPU 0) arms its timer if a length is set and halts, for ever. The sender writes the two
// words of an interrupt command and leaves by a port write, for ever. RDI points to the data page.
global_asm!(
    ".pushsection .rodata.baton_halt_guest, \"a\"",
    ".globl baton_halt_loop",
    "baton_halt_loop:",
    "mov edi, 0x110000",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff", // spurious vector; enables the local APIC
    "mov dword ptr [rbx + 0x320], 0x40", // timer: one-shot, vector 0x40
    "mov dword ptr [rbx + 0x3e0], 0xb",  // counts every tick, 1 ns
    "2:",
    "mov eax, [rdi + 16]",
    "test eax, eax",
    "jz 3f",
    "mov [rbx + 0x380], eax",
    "3:",
    "sti",
    "hlt",
    ".globl baton_halt_after_hlt",
    "baton_halt_after_hlt:",
    "inc qword ptr [rdi + 8]",
    ".globl baton_halt_two_after_hlt",
    "baton_halt_two_after_hlt:",
    "cli",
    "jmp 2b",
    ".globl baton_halt_handler",
    "baton_halt_handler:",
    "inc qword ptr [rdi]",
    ".globl baton_halt_handled",
    "baton_halt_handled:",
    "mov dword ptr [rbx + 0xb0], 0", // end of interrupt
    "iretq",
    ".globl baton_halt_sender",
    "baton_halt_sender:",
    "mov edi, 0x110000",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff",
    "4:",
    "mov eax, [rdi + 28]",
    "mov [rbx + 0x310], eax",
    "mov eax, [rdi + 24]",
    "mov [rbx + 0x300], eax",
    "out 0x80, al",
    "jmp 4b",
    // Halts, and the first instruction after it leads to CPL 3, where it stays.
    ".globl baton_halt_to_user",
    "baton_halt_to_user:",
    "mov edi, 0x110000",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff",
    "sti",
    "hlt",
    "iretq",
    ".globl baton_halt_user",
    "baton_halt_user:",
    "5: inc qword ptr [rdi + 32]",
    "jmp 5b",
    // Halts, and the first instruction after it enters a handler, which stays there: a fault, or INT.
    ".globl baton_halt_to_fault",
    "baton_halt_to_fault:",
    "mov edi, 0x110000",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff",
    "sti",
    "hlt",
    "ud2",
    ".globl baton_halt_to_int",
    "baton_halt_to_int:",
    "mov edi, 0x110000",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff",
    "sti",
    "hlt",
    "int 0x80",
    ".globl baton_halt_stays",
    "baton_halt_stays:",
    "6: inc qword ptr [rdi + 32]",
    "jmp 6b",
    ".globl baton_halt_end",
    "baton_halt_end:",
    ".popsection",
);

unsafe extern "C" {
    static baton_halt_loop: u8;
    static baton_halt_after_hlt: u8;
    static baton_halt_two_after_hlt: u8;
    static baton_halt_handler: u8;
    static baton_halt_handled: u8;
    static baton_halt_sender: u8;
    static baton_halt_to_user: u8;
    static baton_halt_user: u8;
    static baton_halt_to_fault: u8;
    static baton_halt_to_int: u8;
    static baton_halt_stays: u8;
    static baton_halt_end: u8;
}

/// Vector of the timer and of the interrupts that tests send.
pub const VECTOR: u32 = 0x40;
/// Interrupt command: [`VECTOR`] to the destination.
pub const ICR_FIXED: u32 = 0x4000 | VECTOR;
/// Interrupt command: INIT to the destination.
pub const ICR_INIT: u32 = 0x4500;
/// Interrupt command: start at page 8.
pub const ICR_STARTUP: u32 = 0x4608;

/// Exception of an instruction that there is not.
pub const INVALID_OPCODE: u32 = 6;
/// Exception of an NMI.
const NMI: u32 = 2;
/// Vector of a guest's INT.
pub const INT: u32 = 0x80;

const CODE: u64 = 0x10_0000;
const HANDLED: u64 = 0x11_0000;
const RESUMED: u64 = 0x11_0008;
const TIMER: u64 = 0x11_0010;
const ICR: u64 = 0x11_0018;
const ESCAPED: u64 = 0x11_0020;
const IDT: u64 = 0x11_1000;
const STACKS: u64 = 0x11_2000;
const GDT: u64 = 0x11_5000;
/// Page tables of the boot protocol: PML4, PDPT, first page directory.
const PAGE_TABLES: [u64; 3] = [0x9000, 0xa000, 0xb000];
const PTE_USER: u64 = 1 << 2;
/// Code segment of the boot protocol.
const SELECTOR: u64 = 0x10;

fn guest_address(label: *const u8) -> u64 {
    CODE + (label as u64 - (&raw const baton_halt_loop) as u64)
}

/// The address after HLT, and the one after the instruction there.
pub fn after_hlt() -> [u64; 2] {
    [
        guest_address(&raw const baton_halt_after_hlt),
        guest_address(&raw const baton_halt_two_after_hlt),
    ]
}

/// Where the handlers of exceptions and NMIs begin.
pub fn stays() -> u64 {
    guest_address(&raw const baton_halt_stays)
}

/// Where the handler of [`VECTOR`] begins, and the address after its first instruction, which counts.
pub fn handler() -> [u64; 2] {
    [
        guest_address(&raw const baton_halt_handler),
        guest_address(&raw const baton_halt_handled),
    ]
}

/// An ELF file of one segment.
fn image() -> Vec<u8> {
    let length = guest_address(&raw const baton_halt_end) - CODE;
    // SAFETY: the assembly above, from its first label to its last.
    let code = unsafe { std::slice::from_raw_parts(&raw const baton_halt_loop, length as usize) };
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    put(&CODE.to_le_bytes()); // entry
    put(&64u64.to_le_bytes()); // program headers
    put(&[0; 12]); // no sections, no flags
    put(&[64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    put(&[1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD, rwx
    put(&120u64.to_le_bytes()); // offset
    put(&CODE.to_le_bytes());
    put(&CODE.to_le_bytes());
    put(&length.to_le_bytes());
    put(&length.to_le_bytes());
    put(&1u64.to_le_bytes()); // alignment
    put(code);
    elf
}

/// The guest and what tests do to it.
pub struct TestGuest(pub Arc<Guest>);

impl TestGuest {
    /// Creates the guest, with the halting vCPU as vCPU 0; vCPU 1 waits to be started.
    pub fn create() -> (Self, Box<Vcpu>, Box<Vcpu>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path: PathBuf = std::env::temp_dir().join(format!(
            "baton-halt-wake-{}-{}.elf",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::write(&path, image()).expect("temporary file");
        let config = GuestConfig {
            kernel: KernelSource::Path(path.clone()),
            cpus: 2,
            memory: 4 << 20,
            cmdline: String::new(),
            reservations: vec![None, None],
            host_cpus: vec![None, None],
            ..GuestConfig::new("halting")
        };
        let kvm = kvm::open().unwrap_or_else(|error| panic!("this test needs KVM: {error}"));
        let created = Guest::create(&kvm, 0, &config);
        let _ = std::fs::remove_file(&path);
        let (guest, vcpus) = created.unwrap_or_else(|error| panic!("{error}"));
        let [halting, sender] = <[_; 2]>::try_from(vcpus).expect("two vCPUs");

        let this = Self(guest);
        this.set_gate(VECTOR, guest_address(&raw const baton_halt_handler));
        for vector in [NMI, INVALID_OPCODE, INT] {
            this.set_gate(vector, guest_address(&raw const baton_halt_stays));
        }
        let mut sregs = halting.fd().get_sregs().unwrap();
        sregs.idt.base = IDT;
        sregs.idt.limit = 0xfff;
        halting.fd().set_sregs(&sregs).unwrap();
        let regs = kvm_regs {
            rsp: STACKS + 0x1000,
            ..halting.fd().get_regs().unwrap()
        };
        halting.fd().set_regs(&regs).unwrap();
        (this, halting, sender)
    }

    fn set_gate(&self, vector: u32, handler: u64) {
        let gate = IDT + 16 * u64::from(vector);
        let low =
            (handler & 0xffff) | SELECTOR << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        self.write(gate, low);
        self.write(gate + 8, handler >> 32);
    }

    /// Makes vCPU 1 a sender of interrupts, like one that the guest has started.
    pub fn start_sender(&self, sender: &Vcpu, halting: &Vcpu) {
        let mut sregs = sender.fd().get_sregs().unwrap();
        let from = halting.fd().get_sregs().unwrap();
        let apic_base = sregs.apic_base;
        sregs = kvm_bindings::kvm_sregs { apic_base, ..from };
        sender.fd().set_sregs(&sregs).unwrap();
        sender
            .fd()
            .set_regs(&kvm_regs {
                rip: guest_address(&raw const baton_halt_sender),
                rsp: STACKS + 0x2000,
                rflags: 2,
                ..Default::default()
            })
            .unwrap();
        sender.set_mp_state(KVM_MP_STATE_RUNNABLE).unwrap();
    }

    /// Makes vCPU 0 one that halts once and then goes to CPL 3 by IRETQ and stays there.
    pub fn halt_before_user(&self, vcpu: &Vcpu) {
        for table in PAGE_TABLES {
            self.write(table, self.read(table) | PTE_USER);
        }
        // Code and data for the kernel where the boot protocol has them, then for the user where
        // Linux has them: KVM-PVM cares.
        self.write(GDT + 0x10, 0x00af_9b00_0000_ffff);
        self.write(GDT + 0x18, 0x00cf_9300_0000_ffff);
        self.write(GDT + 0x28, 0x00cf_f300_0000_ffff);
        self.write(GDT + 0x30, 0x00af_fb00_0000_ffff);
        let mut sregs = vcpu.fd().get_sregs().unwrap();
        (sregs.gdt.base, sregs.gdt.limit) = (GDT, 0x37);
        vcpu.fd().set_sregs(&sregs).unwrap();
        let stack = STACKS + 0x1000 - 40;
        let user = guest_address(&raw const baton_halt_user);
        for (place, value) in (0..).zip([user, 0x33, 0x202, STACKS + 0x3000, 0x2b]) {
            self.write(stack + 8 * place, value);
        }
        let rip = guest_address(&raw const baton_halt_to_user);
        let regs = vcpu.fd().get_regs().unwrap();
        vcpu.fd()
            .set_regs(&kvm_regs {
                rip,
                rsp: stack,
                ..regs
            })
            .unwrap();
    }

    /// Makes vCPU 0 one that halts once and then enters a handler by exception or INT `vector`, and
    /// stays there.
    pub fn halt_before_handler(&self, vcpu: &Vcpu, vector: u32) {
        let rip = guest_address(if vector == INT {
            &raw const baton_halt_to_int
        } else {
            &raw const baton_halt_to_fault
        });
        let regs = vcpu.fd().get_regs().unwrap();
        vcpu.fd().set_regs(&kvm_regs { rip, ..regs }).unwrap();
    }

    /// What the sender sends, and to which local APIC.
    pub fn set_command(&self, command: u32, to: u32) {
        self.write(ICR, u64::from(command) | u64::from(to) << 56);
    }

    /// The halting vCPU arms its timer for so many ns before it halts; 0 for not at all.
    pub fn set_timer(&self, ns: u32) {
        self.write(TIMER, u64::from(ns));
    }

    /// [`VECTOR`] to the halting vCPU, from a device.
    pub fn device_interrupt(&self) {
        self.message(VECTOR);
    }

    /// An NMI to the halting vCPU, whose handler stays where it is.
    pub fn nmi(&self) {
        self.message(0x400);
    }

    fn message(&self, data: u32) {
        let message = kvm_msi {
            address_lo: 0xfee0_0000,
            data,
            ..Default::default()
        };
        self.0.vm().signal_msi(message).unwrap();
    }

    /// Interrupts that the halting vCPU's handler has handled.
    pub fn handled(&self) -> u64 {
        self.read(HANDLED)
    }

    /// How often the halting vCPU went on after HLT.
    pub fn resumed(&self) -> u64 {
        self.read(RESUMED)
    }

    /// How far a vCPU has come that stays in a handler or at CPL 3 after its halt.
    pub fn escaped(&self) -> u64 {
        self.read(ESCAPED)
    }

    fn read(&self, address: u64) -> u64 {
        self.0
            .memory()
            .regions()
            .read_obj(GuestAddress(address))
            .unwrap()
    }

    fn write(&self, address: u64, value: u64) {
        self.0
            .memory()
            .regions()
            .write_obj(value, GuestAddress(address))
            .unwrap();
    }
}

/// Whether KVM has taken an interrupt or NMI for the vCPU and has not delivered it yet.
pub fn is_on_its_way(vcpu: &Vcpu) -> bool {
    let events = vcpu.fd().get_vcpu_events().unwrap();
    events.interrupt.injected != 0 || events.nmi.injected != 0 || events.nmi.pending != 0
}

/// Whether [`VECTOR`] is pending in the vCPU's local APIC.
pub fn is_pending(vcpu: &Vcpu) -> bool {
    let apic = vcpu.fd().get_lapic().unwrap();
    // Interrupt request register: 32 vectors in each 16 bytes.
    let at = 0x200 + (VECTOR as usize / 32) * 16 + (VECTOR as usize % 32) / 8;
    apic.regs[at] as u8 & (1 << (VECTOR % 8)) != 0
}
