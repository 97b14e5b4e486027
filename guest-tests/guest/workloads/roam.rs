//! vCPUs 0 and 1 wake vCPU 2 in turn and spin until it has run. What they wait is the way to it.
//!
//! With vCPUs 0 and 1 on a host CPU each, vCPU 2 finds only the other one's CPU free, and so runs
//! alternately on both. With both on one host CPU and vCPU 2 on another, it stays.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::run_length::RunLength;
use crate::cpu::Cpu;
use crate::{clock, hints, idle};

/// The one that is woken.
const ROAMER: u32 = 2;
const DONE: u32 = u32::MAX;

/// Which of the two wakes next, or [`DONE`].
static TURN: AtomicU32 = AtomicU32::new(0);
/// The round for which vCPU 2 is called, or [`DONE`], and the last one in which it ran.
static CALLED: AtomicU32 = AtomicU32::new(0);
static RAN: AtomicU32 = AtomicU32::new(0);

pub fn run(cpu: &Cpu) {
    match cpu.index() {
        ROAMER => roam(cpu),
        0 | 1 => take_turns(cpu),
        _ => {}
    }
}

fn take_turns(cpu: &Cpu) {
    let (own, other) = (cpu.index(), 1 - cpu.index());
    let length = RunLength::from_now();
    loop {
        match TURN.load(SeqCst) {
            DONE => return,
            turn if turn == other => idle::sleep_while(cpu, || TURN.load(SeqCst) == other, 0),
            _ if own == 0 && length.is_over(cpu.stats.acquisitions.get()) => {
                for (word, vcpu) in [(&TURN, other), (&CALLED, ROAMER)] {
                    word.store(DONE, SeqCst);
                    idle::wake(vcpu);
                }
            }
            _ => {
                off(other);
                call(cpu);
                // Whoever wakes it now would find it on its way into its sleep.
                off(ROAMER);
                TURN.store(other, SeqCst);
                idle::wake(other);
            }
        }
    }
}

/// Spins until this vCPU is off its host CPU, as far as the host tells.
fn off(vcpu: u32) {
    while hints::running(vcpu) {
        spin_loop();
    }
}

/// Wakes the roamer and spins until it has run; counts how long that took.
fn call(cpu: &Cpu) {
    let round = CALLED.load(SeqCst) + 1;
    let start = clock::now();
    CALLED.store(round, SeqCst);
    idle::wake(ROAMER);
    while RAN.load(SeqCst) != round {
        spin_loop();
    }
    let waited = clock::now().saturating_sub(start);
    cpu.stats.acquired(clock::to_ns(waited));
}

fn roam(cpu: &Cpu) {
    loop {
        let ran = RAN.load(SeqCst);
        match CALLED.load(SeqCst) {
            DONE => return,
            called if called == ran => {
                idle::sleep_while(cpu, || CALLED.load(SeqCst) == ran, 0);
            }
            called => RAN.store(called, SeqCst),
        }
    }
}
