//! Preemption: when a task may lose its vCPU to another one, and the timer that asks for it.
//!
//! With `tick=` on the command line the local APIC's timer interrupts the task that runs. The
//! interrupt makes the tick *due*, and one of two things acts on it: the interrupt itself where
//! preemption is allowed, else [`enable`], which ends the stretch where it is not. Both call
//! [`tasks::tick`], on the stack of the task that ran; that lets the next task run, and comes back
//! when it is this one's turn again.
//!
//! # Where a task is not preempted
//! [`disable`] counts; the count is the vCPU's own. Not preempted are the scheduler and the vCPU's own
//! context; who holds a spinlock or waits for one; who says in the hint page what the whole vCPU does,
//! or counts there; who is between making the reason of a sleep go away and waking the sleeper, or
//! between deciding to idle and idling. A task that holds a *mutex* is preempted like any other.
//!
//! # The interrupt
//! Its gate leads to CPL 0, though all the work is done at CPL 3. There is no gate from CPL 0 to CPL 3,
//! so one that led there would be a fault in a halt. And the CPU would store the interrupt's frame right
//! below the stack pointer, where the precompiled parts of `core` keep data (a red zone). So the stub
//! behind the gate (`idt.rs`) puts away where the task was, and returns to [`entry`] instead, which goes
//! on below the red zone and ends the interrupt; until then there is no second one. RFLAGS are the
//! task's own all the time, IF included, and need no IRETQ to come back. One that comes right at the end
//! of another finds that still on the stack, which has room for several.
//!
//! # The timer
//! One-shot; armed when a task begins to run and it is not. So a tick is the vCPU's, not the task's,
//! and a switch costs no access to the timer. It is stopped for a halt, so that nothing wakes a vCPU
//! that waits. An interrupt on its way at that moment may arrive in the halt: the stub then only ends it.

use core::arch::naked_asm;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicUsize, compiler_fence};

use crate::apic;
use crate::config;
use crate::cpu::{BLOCK_SIZE, Cpu};
use crate::layout::LOCAL_APIC;
use crate::vectors::VECTOR_TICK;

/// [`Cpu::tick`]: no task runs, or none is to be preempted.
const OFF: u32 = 0;
/// The timer runs.
const ARMED: u32 = 1;
/// The timer does not run, and who runs next has to be decided.
const DUE: u32 = 2;

/// Bytes below the stack pointer that code which was compiled with a red zone may use.
const RED_ZONE: usize = 128;
/// Bytes that FXSAVE64 stores.
const FX_AREA: usize = 512;

/// Lets the next ready task of this vCPU run; the scheduler's.
pub type Reschedule = fn(&Cpu);

/// The scheduler's [`Reschedule`]; 0 until tasks have run.
static RESCHEDULE: AtomicUsize = AtomicUsize::new(0);

/// Calls the scheduler, on the stack of the task that runs.
#[cold]
extern "C" fn reschedule(cpu: &Cpu) {
    // SAFETY: `begin` stored it from a `Reschedule`, and no tick is due before.
    let reschedule: Reschedule = unsafe { core::mem::transmute(RESCHEDULE.load(Relaxed)) };
    reschedule(cpu);
}

/// Keeps the task that runs on its vCPU, until as many calls of [`enable`].
#[inline(always)]
pub fn disable(cpu: &Cpu) {
    let depth = cpu.unpreemptible.load(Relaxed);
    cpu.unpreemptible.store(depth + 1, Relaxed);
    compiler_fence(SeqCst);
}

/// Takes one [`disable`] back; another task runs first if the tick came meanwhile.
#[inline(always)]
pub fn enable(cpu: &Cpu) {
    // A tick before the count changed found preemption off and is seen here, a later one acts by
    // itself.
    if allow(cpu) && is_due(cpu) {
        reschedule(cpu);
    }
}

/// Takes one [`disable`] back and does not look for a tick. Whether preemption is allowed now.
#[inline(always)]
pub fn allow(cpu: &Cpu) -> bool {
    compiler_fence(SeqCst);
    let depth = cpu.unpreemptible.load(Relaxed) - 1;
    cpu.unpreemptible.store(depth, Relaxed);
    compiler_fence(SeqCst);
    depth == 0
}

/// Does something without being preempted.
#[inline(always)]
pub fn undisturbed<T>(cpu: &Cpu, action: impl FnOnce() -> T) -> T {
    disable(cpu);
    let result = action();
    enable(cpu);
    result
}

/// Whether preemption is off just once: the state in which tasks are switched.
pub fn is_disabled_once(cpu: &Cpu) -> bool {
    cpu.unpreemptible.load(Relaxed) == 1
}

/// Whether somebody has to look who runs next.
#[inline(always)]
pub fn is_due(cpu: &Cpu) -> bool {
    cpu.tick.load(Relaxed) == DUE
}

/// The vCPU begins to run tasks. Its own context is not preempted from here on, nor when the tasks
/// have ended.
pub fn begin(cpu: &Cpu, scheduler: Reschedule) {
    RESCHEDULE.store(scheduler as usize, Relaxed);
    cpu.unpreemptible.store(1, Relaxed);
    if config::get().tick != 0 {
        apic::aim_timer(VECTOR_TICK);
    }
}

/// Sees to it that a tick comes. For who lets a task run.
pub fn start_timer(cpu: &Cpu) {
    let ns = config::get().tick;
    if ns != 0 && cpu.tick.load(Relaxed) != ARMED {
        // Before the timer runs, or its interrupt might be overwritten.
        cpu.tick.store(ARMED, Relaxed);
        compiler_fence(SeqCst);
        apic::start_timer(ns);
    }
}

/// Stops the timer. The tick is due then: whoever runs next has it started again.
pub fn stop_timer(cpu: &Cpu) {
    if cpu.tick.load(Relaxed) == ARMED {
        apic::start_timer(0);
        cpu.tick.store(DUE, Relaxed);
    }
}

/// Takes the timer back from who used it for something else.
pub fn reclaim_timer(cpu: &Cpu) {
    if cpu.tick.load(Relaxed) != OFF {
        apic::aim_timer(VECTOR_TICK);
    }
}

/// The vCPU has no more tasks to run.
pub fn end(cpu: &Cpu) {
    stop_timer(cpu);
    cpu.tick.store(OFF, Relaxed);
}

/// Where the tick goes on at CPL 3, on the stack of the task that it interrupted, with all registers but
/// RIP as they were.
///
/// The vector registers belong to the task too: the compiler uses them to copy.
#[unsafe(naked)]
pub extern "C" fn entry() {
    naked_asm!(
        // Past the red zone, and room for where to return. LEA changes no flags.
        "lea rsp, [rsp - {red_zone} - 8]",
        "pushfq",
        "push rax",
        "push rcx",
        "mov rax, rsp",
        "and rax, -{block_size}",
        "mov rcx, [rax + {return_to}]",
        "mov [rsp + 24], rcx",
        "mov dword ptr [rax + {tick}], {due}",
        "mov ecx, {eoi}",
        "mov dword ptr [rcx], 0",
        "cmp dword ptr [rax + {unpreemptible}], 0",
        "jne 2f",
        "push rdx",
        "push rbx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "mov rbx, rsp",
        "sub rsp, {fx_area}",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "cld",
        "mov rdi, rax",
        "call {act}",
        "fxrstor64 [rsp]",
        "mov rsp, rbx",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbx",
        "pop rdx",
        "2:",
        "pop rcx",
        "pop rax",
        "popfq",
        "ret {red_zone}",
        red_zone = const RED_ZONE,
        block_size = const BLOCK_SIZE,
        return_to = const Cpu::TICK_RETURN_OFFSET,
        tick = const Cpu::TICK_OFFSET,
        due = const DUE,
        eoi = const LOCAL_APIC + apic::EOI,
        unpreemptible = const Cpu::UNPREEMPTIBLE_OFFSET,
        fx_area = const FX_AREA,
        act = sym reschedule,
    )
}
