//! Idling, and waking an idle vCPU.
//!
//! A vCPU that is about to sleep sets its `asleep` word, checks once more that it has reason to sleep,
//! and idles. A waker removes the reason, then clears the word and wakes the vCPU only if the word was
//! set. Both sides write before they read (with locked instructions), so at least one of them sees the
//! other's write. A wake-up between the check and the idling is not lost either: the host remembers
//! wake-ups by doorbell, and the halt compares the word with interrupts off.

use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::abi::{DOORBELL_IDLE, DOORBELL_WAKE};
use crate::config::{self, IdleKind};
use crate::cpu::Cpu;
use crate::vectors::VECTOR_WAKE;
use crate::{apic, clock, hints, preempt, ring0};

const AWAKE: u32 = 0;
const IN_DOORBELL: u32 = 1;
const IN_HALT: u32 = 2;
const IN_PAUSE: u32 = 3;

/// Spins before idling where a wait is usually short.
const SHORT_SPIN: u32 = 2000;

/// The way to idle until this TSC value (0: until woken).
fn way(until: u64) -> u32 {
    match config::get().idle {
        IdleKind::Pause => IN_PAUSE,
        // The time at which the doorbell ends is in the hint page.
        IdleKind::Auto if hints::present() && (until == 0 || hints::on()) => IN_DOORBELL,
        IdleKind::Auto | IdleKind::Halt => IN_HALT,
    }
}

/// Idles if `still` holds, until woken or until this TSC value (0: only until woken). May return early.
///
/// A vCPU idles with preemption disabled once, as Linux's idle task does.
pub fn sleep_while(cpu: &Cpu, still: impl Fn() -> bool, until: u64) {
    // So it is in the vCPU's own context as soon as that has run tasks.
    if preempt::is_disabled_once(cpu) {
        idle(cpu, still, until);
    } else {
        preempt::with_disabled(cpu, || idle(cpu, still, until));
    }
}

fn idle(cpu: &Cpu, still: impl Fn() -> bool, until: u64) {
    let way = way(until);
    cpu.asleep.swap(way, SeqCst);
    if still() {
        match way {
            IN_DOORBELL => {
                if hints::on() {
                    hints::idle_until(cpu, until);
                }
                hints::ring(DOORBELL_IDLE, 0);
            }
            IN_HALT => halt(cpu, until),
            _ => {
                while cpu.asleep.load(Relaxed) == IN_PAUSE && before(until) {
                    spin_loop();
                }
            }
        }
    }
    cpu.asleep.store(AWAKE, Relaxed);
}

fn halt(cpu: &Cpu, until: u64) {
    preempt::stop_timer(cpu);
    if until == 0 {
        return ring0::halt_while(&cpu.asleep, IN_HALT);
    }
    let ns = clock::to_ns(until.saturating_sub(clock::now()));
    apic::arm_timer(u32::try_from(ns).unwrap_or(u32::MAX).max(1));
    ring0::halt_while(&cpu.asleep, IN_HALT);
    apic::arm_timer(0);
    preempt::restore_timer(cpu);
}

fn before(until: u64) -> bool {
    until == 0 || clock::now() < until
}

/// Spins a little, then idles, as long as `still` holds and the TSC has not reached `until` (0: without
/// a limit).
pub fn wait_while(cpu: &Cpu, still: impl Fn() -> bool, until: u64) {
    for _ in 0..SHORT_SPIN {
        if !still() {
            return;
        }
        spin_loop();
    }
    while still() && before(until) {
        sleep_while(cpu, &still, until);
    }
}

/// Wakes the vCPU with this index if it sleeps or is about to. Must be called after the reason for its
/// sleep was removed.
pub fn wake(target: u32) {
    // The vCPU that clears the word must send the wake-up, and sending an interrupt takes two steps.
    preempt::with_disabled(Cpu::current(), || {
        match Cpu::get(target).asleep.swap(AWAKE, SeqCst) {
            IN_DOORBELL => hints::ring(DOORBELL_WAKE, target),
            IN_HALT => apic::send(target, VECTOR_WAKE),
            _ => {}
        }
    });
}

/// Whether the vCPU with this index went idle by itself, or is about to.
pub fn asleep(target: u32) -> bool {
    Cpu::get(target).asleep.load(Relaxed) != AWAKE
}
