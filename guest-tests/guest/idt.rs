//! The interrupt descriptor table and the assembly behind it.
//!
//! Faults go through trap gates to CPL-3 code: the same privilege level on the same stack (which is
//! why the guest is compiled without a red zone), and IRETQ can return natively. An interrupt gate
//! to CPL 3 would leave interrupts off for good where CPL 3's IRETQ cannot set IF.
//!
//! Interrupts that may end a halt arrive at CPL 0, from where no gate leads to CPL 3, so their gates
//! lead to CPL 0. So does the gate of the tick, which then continues at CPL 3 (`preempt.rs`).

use core::arch::global_asm;
use core::cell::UnsafeCell;

use crate::apic;
use crate::cpu::{BLOCK_SIZE, Cpu, RING0_TOP};
use crate::layout::LOCAL_APIC;
use crate::preempt;
use crate::ring0::AfterHalt;
use crate::vectors::{VECTOR_POKE, VECTOR_SPURIOUS, VECTOR_TICK, VECTOR_TIMER, VECTOR_WAKE};

/// The vector by which CPL 0 enters the handler that keeps the vCPU (`INT 0x80`).
const VECTOR_KEEP: u8 = 0x80;

const CODE_CPL0: u16 = 0x08;
const CODE_CPL3: u16 = 0x33;
const TRAP: u8 = 0x8f;
const INTERRUPT: u8 = 0x8e;
/// Added: software at CPL 3 may use the gate.
const DPL3: u8 = 0x60;

const VECTOR_DIVIDE_ERROR: u8 = 0;
const VECTOR_BREAKPOINT: u8 = 3;
const EXCEPTIONS: u8 = 32;

/// The descriptors of all vectors.
#[repr(C, align(4096))]
pub struct Table(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written by vCPU 0 before the others start; every vCPU that writes later writes the same.
unsafe impl Sync for Table {}

/// The table, for the entry code.
pub static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

unsafe extern "C" {
    static fault_stubs: u8;
    static ring0_service: u8;
    static timer_interrupt: u8;
    static wake_interrupt: u8;
    static poke_interrupt: u8;
    static tick_interrupt: u8;
    static spurious_interrupt: u8;
    static keep_cpu: u8;
}

const FAULT_STUB_SIZE: usize = 16;

/// Fills the table, which every vCPU's IDTR already points to.
pub fn fill() {
    let stubs = (&raw const fault_stubs) as usize;
    for vector in 0..EXCEPTIONS {
        let stub = stubs + usize::from(vector) * FAULT_STUB_SIZE;
        set(vector, stub, CODE_CPL3, TRAP);
    }
    let at = |symbol: *const u8| symbol as usize;
    let service = at(&raw const ring0_service);
    set(VECTOR_BREAKPOINT, service, CODE_CPL0, INTERRUPT | DPL3);
    let timer = at(&raw const timer_interrupt);
    set(VECTOR_TIMER, timer, CODE_CPL0, INTERRUPT);
    let wake = at(&raw const wake_interrupt);
    set(VECTOR_WAKE, wake, CODE_CPL0, INTERRUPT);
    set(VECTOR_POKE, at(&raw const poke_interrupt), CODE_CPL3, TRAP);
    let tick = at(&raw const tick_interrupt);
    set(VECTOR_TICK, tick, CODE_CPL0, INTERRUPT);
    let spurious = at(&raw const spurious_interrupt);
    set(VECTOR_SPURIOUS, spurious, CODE_CPL0, INTERRUPT);
    let keep = at(&raw const keep_cpu);
    set(VECTOR_KEEP, keep, CODE_CPL0, INTERRUPT);
}

/// From here on a division by zero at CPL 0 enters the handler that keeps the vCPU.
pub fn keep_at_divide_error() {
    let keep = (&raw const keep_cpu) as usize;
    set(VECTOR_DIVIDE_ERROR, keep, CODE_CPL0, INTERRUPT);
}

/// Empties the table: the next exception or interrupt is a triple fault.
pub fn clear() {
    for vector in 0..=255 {
        write(vector, [0; 2]);
    }
}

fn set(vector: u8, handler: usize, selector: u16, kind: u8) {
    let handler = handler as u64;
    let low = (handler & 0xffff)
        | u64::from(selector) << 16
        | u64::from(kind) << 40
        | (handler >> 16 & 0xffff) << 48;
    write(vector, [low, handler >> 32]);
}

fn write(vector: u8, gate: [u64; 2]) {
    // SAFETY: in bounds; volatile because only the CPU reads it.
    unsafe {
        TABLE
            .0
            .get()
            .cast::<[u64; 2]>()
            .add(usize::from(vector))
            .write_volatile(gate);
    }
}

global_asm!(
    r#"
    .pushsection .text.idt, "ax", @progbits
    .globl fault_stubs
    .globl ring0_service
    .globl timer_interrupt
    .globl wake_interrupt
    .globl poke_interrupt
    .globl tick_interrupt
    .globl spurious_interrupt
    .globl keep_cpu

    .balign 16
fault_stubs:
    .set vector, 0
    .rept {exceptions}
    .balign {stub_size}
    # Vectors 8, 10-14, 17, 21, 29 and 30 push an error code themselves.
    .if (0x60227d00 >> vector) & 1 == 0
    push 0
    .endif
    push vector
    jmp fault_common
    .set vector, vector + 1
    .endr

fault_common:
    mov rdi, rsp
    and rsp, -16
    cld
    call {report}

    # INT3. edi: 0 halts while [rsi] == edx; 1 WRMSR; 2 reads CR2; 3 and up as 0, with another
    # instruction after the halt. The gate disables interrupts, so no wake-up is lost between the
    # comparison and the halt.
ring0_service:
    cmp edi, 1
    je 1f
    ja 2f
    cmp dword ptr [rsi], edx
    jne 3f
    sti
    hlt
    // Where KVM emulates CPL 0, a single step that ends at CPL 3 goes unnoticed.
    nop
3:  iretq
1:  wrmsr
    iretq
2:  cmp edi, {after_return}
    jae 4f
    mov rax, cr2
    iretq
4:  cmp dword ptr [rsi], edx
    jne 3b
    cmp edi, {after_interrupt}
    je 5f
    ja 6f
    sti
    hlt
    iretq
5:  sti
    hlt
    int {vector_keep}
6:  xor ecx, ecx
    sti
    hlt
    div ecx

    # Entering a handler clears TF, so a single step that a hypervisor has set does not end here. The
    # handler leaves by the frame of the interrupted service, the first one on this stack.
keep_cpu:
    mov rcx, rsp
    and rcx, -{block_size}
7:  inc qword ptr [rcx + {iterations}]
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, [rip + {keep_until}]
    jb 7b
    lea rsp, [rcx + {ring0_top} - 40]
    iretq

    # The timer also ends the sleep of a vCPU that was about to halt.
timer_interrupt:
    push rax
    mov rax, rsp
    and rax, -{block_size}
    inc dword ptr [rax + {ticks}]
    mov dword ptr [rax + {asleep}], 0
    jmp end_of_interrupt

    # Saves the task's RIP and returns to the handler of the tick. In a halt (CPL 0) there is no task to
    # preempt.
tick_interrupt:
    push rax
    test byte ptr [rsp + 16], 3
    jz end_of_interrupt
    mov rax, rsp
    and rax, -{block_size}
    push qword ptr [rsp + 8]
    pop qword ptr [rax + {tick_return}]
    mov qword ptr [rsp + 8], offset {tick_entry}
    pop rax
    iretq

wake_interrupt:
    push rax
    mov rax, rsp
    and rax, -{block_size}
    inc dword ptr [rax + {wakes}]
    jmp end_of_interrupt

poke_interrupt:
    push rax
    mov rax, rsp
    and rax, -{block_size}
    inc dword ptr [rax + {pokes}]
end_of_interrupt:
    mov eax, {eoi}
    mov dword ptr [rax], 0
    pop rax
spurious_interrupt:
    iretq
    .popsection
    "#,
    exceptions = const EXCEPTIONS,
    stub_size = const FAULT_STUB_SIZE,
    report = sym crate::fault::report,
    block_size = const BLOCK_SIZE,
    ticks = const Cpu::TICKS_OFFSET,
    wakes = const Cpu::WAKES_OFFSET,
    pokes = const Cpu::POKES_OFFSET,
    asleep = const Cpu::ASLEEP_OFFSET,
    iterations = const Cpu::ITERATIONS_OFFSET,
    ring0_top = const RING0_TOP,
    vector_keep = const VECTOR_KEEP,
    keep_until = sym crate::ring0::KEEP_UNTIL,
    after_return = const AfterHalt::Return as u32,
    after_interrupt = const AfterHalt::Interrupt as u32,
    tick_return = const Cpu::TICK_RETURN_OFFSET,
    tick_entry = sym preempt::entry,
    eoi = const LOCAL_APIC + apic::EOI,
);
