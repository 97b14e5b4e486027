//! Halts, timers and inter-processor interrupts of the machine's interrupt controller.
//!
//! Part 1: every vCPU arms its timer and halts until the timer wakes it. Part 2: vCPUs 0 and 1 each halt
//! until the other's interrupt. Part 3: vCPU 0 interrupts vCPU 1, which runs at CPL 3 and handles the
//! interrupt there. The reported iterations are the rounds of all three parts.

use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::barrier::Barrier;
use crate::config;
use crate::cpu::Cpu;
use crate::vectors::{VECTOR_POKE, VECTOR_TIMER, VECTOR_WAKE};
use crate::{apic, clock, console, ring0, smp};

const MSR_TSC_DEADLINE: u32 = 0x6e0;

static MIDDLE: [Barrier; 2] = [const { Barrier::new() }; 2];
/// Longest time from the programmed time to running again, nanoseconds.
static LATEST_NS: AtomicU64 = AtomicU64::new(0);
/// Interrupts that vCPU 1 saw in part 3.
static SEEN: AtomicU32 = AtomicU32::new(0);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let count = config::get().count;
    timer(cpu, count);
    MIDDLE[0].wait(cpu);
    if smp::count() >= 2 && cpu.index() < 2 {
        interrupts_to_halted(cpu, count);
    }
    MIDDLE[1].wait(cpu);
    if smp::count() >= 2 {
        match cpu.index() {
            0 => poke(cpu, count),
            1 => be_poked(cpu, count),
            _ => {}
        }
    }
}

fn timer(cpu: &Cpu, count: u64) {
    let period = config::get().period;
    for _ in 0..count {
        let before = cpu.ticks.load(Relaxed);
        let due = clock::now() + clock::from_ns(period);
        arm(due, period);
        while cpu.ticks.load(SeqCst) == before {
            ring0::halt_while(&cpu.ticks, before);
        }
        let late = clock::to_ns(clock::now().saturating_sub(due));
        LATEST_NS.fetch_max(late, Relaxed);
        cpu.stats.iterations.add(1);
    }
}

fn arm(due: u64, period: u64) {
    if config::get().deadline_timer {
        apic::use_deadline_timer();
        // SAFETY: arms a timer whose handler changes counters only.
        unsafe { ring0::write_msr(MSR_TSC_DEADLINE, due) };
    } else {
        apic::arm_timer(u32::try_from(period).unwrap_or(u32::MAX));
    }
}

fn interrupts_to_halted(cpu: &Cpu, count: u64) {
    let me = cpu.index();
    // A barrier may have sent wake-ups of its own before, so both sides count rounds.
    for _ in 0..count {
        if me == 0 {
            send_and_wait(cpu, 1);
        } else {
            wait_and_send(cpu, 0);
        }
        cpu.stats.iterations.add(1);
    }
}

static ROUND: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn send_and_wait(cpu: &Cpu, other: u32) {
    let round = ROUND[0].fetch_add(1, SeqCst) + 1;
    apic::send(other, VECTOR_WAKE);
    halt_until(cpu, || ROUND[1].load(SeqCst) == round);
}

fn wait_and_send(cpu: &Cpu, other: u32) {
    let round = ROUND[1].load(SeqCst) + 1;
    halt_until(cpu, || ROUND[0].load(SeqCst) == round);
    ROUND[1].store(round, SeqCst);
    apic::send(other, VECTOR_WAKE);
}

/// Halts from wake-up to wake-up until `done`. The count is read before the condition, and the halt
/// compares it with interrupts off, so no wake-up is lost.
fn halt_until(cpu: &Cpu, done: impl Fn() -> bool) {
    loop {
        let seen = cpu.wakes.load(SeqCst);
        if done() {
            return;
        }
        ring0::halt_while(&cpu.wakes, seen);
    }
}

fn poke(cpu: &Cpu, count: u64) {
    for sent in 1..=count as u32 {
        apic::send(1, VECTOR_POKE);
        while SEEN.load(SeqCst) != sent {
            spin_loop();
        }
        cpu.stats.iterations.add(1);
    }
}

fn be_poked(cpu: &Cpu, count: u64) {
    while u64::from(cpu.pokes.load(SeqCst)) < count {
        SEEN.store(cpu.pokes.load(SeqCst), SeqCst);
        spin_loop();
    }
    SEEN.store(cpu.pokes.load(SeqCst), SeqCst);
}

/// Checks the results and prints a line, with the vector, so that a log of interrupts can be compared.
pub fn finish() -> bool {
    let count = config::get().count;
    let ticks: u64 = smp::cpus()
        .map(|cpu| u64::from(cpu.ticks.load(Relaxed)))
        .sum();
    let pokes: u64 = smp::cpus()
        .map(|cpu| u64::from(cpu.pokes.load(Relaxed)))
        .sum();
    let pairs = u64::from(smp::count() >= 2);
    let good = ticks == count * u64::from(smp::count()) && pokes == count * pairs;
    console::line(format_args!(
        "guest: halts ended by {ticks} timer interrupts (vector {VECTOR_TIMER:#x}, latest {} us), \
         {} rounds between halted vCPUs, {pokes} interrupts handled at CPL 3: {}",
        LATEST_NS.load(Relaxed) / 1000,
        ROUND[1].load(Relaxed),
        if good { "right" } else { "WRONG" },
    ));
    good
}
