//! Preemption: where a task may lose its vCPU to another task, and the timer that requests it.
//!
//! With `tick=` on the command line the local APIC's timer interrupts the task that runs. The
//! interrupt makes the tick *due*. Where preemption is enabled, the interrupt itself calls the
//! scheduler; where it is disabled, the [`enable`] that ends this does. In both cases the scheduler runs
//! on the stack of the interrupted task, lets the next task run, and returns when this task has its
//! next turn.
//!
//! # Where a task is not preempted
//! [`disable`] counts; each vCPU has a count of its own ([`preempt_count`]). Preemption is disabled
//! - in the scheduler and in the vCPU's own context;
//! - while a task holds a spinlock or waits for one;
//! - while a task writes into the hint page what the whole vCPU does, or updates a counter there;
//! - between the moment at which a task ends the reason for a sleep and the moment at which it wakes the
//!   sleeper;
//! - between the decision to idle and idling.
//!
//! A task that holds a *mutex* is preempted like any other.
//!
//! # The interrupt
//! The tick's gate leads to CPL 0, though all the work is done at CPL 3, for two reasons. No gate leads
//! from CPL 0 to CPL 3, so a gate to CPL 3 would fault in a halt. And the CPU would store the
//! interrupt's frame right below the stack pointer, where the precompiled parts of `core` keep data (a
//! red zone). The stub behind the gate (`idt.rs`) therefore saves the task's RIP and returns to [`entry`],
//! which continues below the red zone and signals the end of the interrupt. No second tick arrives
//! before that. RFLAGS remain the task's throughout, IF included, so no IRETQ is needed to restore them.
//! A tick that arrives at the very end of another one finds part of the first one's frame still on the
//! stack, which has room for several.
//!
//! # The timer
//! The timer is one-shot. It is armed when a task begins to run and it is not armed already. So a tick
//! belongs to the vCPU and not to the task, and a switch of tasks does not access the timer. The timer is
//! stopped for a halt, so that it does not wake a vCPU that waits. An interrupt that was under way at
//! that moment may arrive in the halt; the stub then only ends the halt.

use core::arch::naked_asm;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicUsize, compiler_fence};

use crate::apic;
use crate::config;
use crate::cpu::{BLOCK_SIZE, Cpu};
use crate::layout::LOCAL_APIC;
use crate::preempt_count;
use crate::vectors::VECTOR_TICK;

/// [`Cpu::tick`]: no task runs, or none is to be preempted.
const OFF: u32 = 0;
/// The timer runs.
const ARMED: u32 = 1;
/// The timer has expired or was stopped, and the scheduler has to choose the next task.
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

/// Disables preemption until [`enable`] has been called as often.
#[inline(always)]
pub fn disable() {
    preempt_count::increment();
}

/// Undoes one [`disable`]. If the tick became due meanwhile, another task runs before this returns.
#[inline(always)]
pub fn enable(cpu: &Cpu) {
    // A tick before the change of the count found preemption disabled and is handled here; a later
    // one calls the scheduler itself.
    if enable_without_reschedule(cpu) && needs_reschedule(cpu) {
        reschedule(cpu);
    }
}

/// Undoes one [`disable`] without a look at the tick. Returns whether preemption is enabled now.
#[inline(always)]
pub fn enable_without_reschedule(cpu: &Cpu) -> bool {
    preempt_count::decrement();
    preempt_count::depth(cpu) == 0
}

/// Runs `action` with preemption disabled.
#[inline(always)]
pub fn with_disabled<T>(cpu: &Cpu, action: impl FnOnce() -> T) -> T {
    disable();
    let result = action();
    enable(cpu);
    result
}

/// Whether preemption was disabled exactly once: the state in which tasks are switched.
pub fn is_disabled_once(cpu: &Cpu) -> bool {
    preempt_count::depth(cpu) == 1
}

/// Whether the tick is due, so that the scheduler has to choose the next task.
#[inline(always)]
pub fn needs_reschedule(cpu: &Cpu) -> bool {
    cpu.tick.load(Relaxed) == DUE
}

/// The vCPU begins to run tasks, which `scheduler` reschedules. The vCPU's own context is not preempted
/// from here on, nor after the tasks have ended.
pub fn begin(cpu: &Cpu, scheduler: Reschedule) {
    RESCHEDULE.store(scheduler as usize, Relaxed);
    preempt_count::set_depth(cpu, 1);
    if config::get().tick != 0 {
        apic::set_timer_vector(VECTOR_TICK);
    }
}

/// Arms the timer unless it is armed. The scheduler calls this before it lets a task run.
pub fn start_timer(cpu: &Cpu) {
    let ns = config::get().tick;
    if ns != 0 && cpu.tick.load(Relaxed) != ARMED {
        // Before the timer runs: the store must not overwrite that of its interrupt.
        cpu.tick.store(ARMED, Relaxed);
        compiler_fence(SeqCst);
        apic::start_timer(ns);
    }
}

/// Stops the timer and makes the tick due, so that the timer is armed again when a task runs next.
pub fn stop_timer(cpu: &Cpu) {
    if cpu.tick.load(Relaxed) == ARMED {
        apic::start_timer(0);
        cpu.tick.store(DUE, Relaxed);
    }
}

/// Lets the timer raise ticks again after another use.
pub fn restore_timer(cpu: &Cpu) {
    if cpu.tick.load(Relaxed) != OFF {
        apic::set_timer_vector(VECTOR_TICK);
    }
}

/// The vCPU has no more tasks to run.
pub fn end(cpu: &Cpu) {
    stop_timer(cpu);
    cpu.tick.store(OFF, Relaxed);
}

/// Continues the tick's interrupt at CPL 3, on the stack of the interrupted task, with all registers but
/// RIP as the task left them.
///
/// The vector registers are saved too: the compiler uses them to copy memory.
#[unsafe(naked)]
pub extern "C" fn entry() {
    naked_asm!(
        r#"
        # Past the red zone, and space for the return address. LEA changes no flags.
        lea rsp, [rsp - {red_zone} - 8]
        pushfq
        push rax
        push rcx
        mov rax, rsp
        and rax, -{block_size}
        mov rcx, [rax + {return_to}]
        mov [rsp + 24], rcx
        mov dword ptr [rax + {tick}], {due}
        mov ecx, {eoi}
        mov dword ptr [rcx], 0
        cmp dword ptr [rax + {preempt_count}], {enabled}
        jne 2f
        .irp register, rdx, rbx, rsi, rdi, r8, r9, r10, r11
        push \register
        .endr
        mov rbx, rsp
        sub rsp, {fx_area}
        and rsp, -16
        fxsave64 [rsp]
        cld
        mov rdi, rax
        call {reschedule}
        fxrstor64 [rsp]
        mov rsp, rbx
        .irp register, r11, r10, r9, r8, rdi, rsi, rbx, rdx
        pop \register
        .endr
    2:  pop rcx
        pop rax
        popfq
        ret {red_zone}
        "#,
        red_zone = const RED_ZONE,
        block_size = const BLOCK_SIZE,
        return_to = const Cpu::TICK_RETURN_OFFSET,
        tick = const Cpu::TICK_OFFSET,
        due = const DUE,
        eoi = const LOCAL_APIC + apic::EOI,
        preempt_count = const Cpu::PREEMPT_COUNT_OFFSET,
        enabled = const preempt_count::ENABLED,
        fx_area = const FX_AREA,
        reschedule = sym reschedule,
    )
}
