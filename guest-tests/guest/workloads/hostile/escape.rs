//! A halted vCPU that keeps the host thread on which it wakes.
//!
//! A host that lets halted vCPUs sleep outside its scheduler must regain control when an interrupt wakes a
//! vCPU. If the host relies on a single step for that, it does not notice the end of an instruction that
//! enters a handler, because this clears TF, or, where KVM emulates CPL 0, of one that leaves CPL 0.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::cpu::Cpu;
use crate::ring0::{self, AfterHalt};
use crate::workloads::run_length::end_time;
use crate::{apic, busy, clock, config, idt};

const CHUNK: u64 = 100;

/// `INT` after the halt enters a handler, which computes to the end.
pub fn by_interrupt(cpu: &Cpu) {
    into_handler(cpu, AfterHalt::Interrupt);
}

/// A fault after the halt enters a handler, which computes to the end.
pub fn by_fault(cpu: &Cpu) {
    idt::keep_at_divide_error();
    into_handler(cpu, AfterHalt::Fault);
}

fn into_handler(cpu: &Cpu, after: AfterHalt) {
    let end = end_time();
    ring0::KEEP_UNTIL.store(end, SeqCst);
    while clock::now() < end {
        halt(cpu, after);
    }
}

/// The instruction after the halt returns to CPL 3, where the vCPU computes until the host delivers the
/// interrupt that woke it. A host whose single step ends there regains control at once.
pub fn by_return(cpu: &Cpu) {
    let end = end_time();
    while clock::now() < end {
        let before = halt(cpu, AfterHalt::Return);
        while cpu.ticks.load(Relaxed) == before && clock::now() < end {
            busy::spin(CHUNK);
            cpu.stats.iterations.add(CHUNK);
        }
    }
}

/// Halts until the timer. Returns the count of ticks before.
fn halt(cpu: &Cpu, after: AfterHalt) -> u32 {
    let before = cpu.ticks.load(SeqCst);
    let period = u32::try_from(config::get().period).unwrap_or(u32::MAX);
    apic::arm_timer(period.max(1));
    ring0::halt_before(after, &cpu.ticks, before);
    before
}
