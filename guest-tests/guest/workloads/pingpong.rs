//! vCPUs 0 and 1 hand a token to each other, and the vCPU without the token is idle. Counts round trips.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::run_length::RunLength;
use crate::cpu::Cpu;
use crate::idle;

const DONE: u32 = u32::MAX;

/// The vCPU that has the token, or [`DONE`].
static TOKEN: AtomicU32 = AtomicU32::new(0);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    match cpu.index() {
        0 => serve(cpu),
        1 => answer(cpu),
        _ => {}
    }
}

fn serve(cpu: &Cpu) {
    let length = RunLength::from_now();
    let rounds = &cpu.stats.iterations;
    while !length.is_over(rounds.get()) {
        pass(1);
        while TOKEN.load(SeqCst) != 0 {
            idle::sleep_while(cpu, || TOKEN.load(SeqCst) != 0, 0);
        }
        rounds.add(1);
    }
    TOKEN.store(DONE, SeqCst);
    idle::wake(1);
}

fn answer(cpu: &Cpu) {
    loop {
        match TOKEN.load(SeqCst) {
            0 => idle::sleep_while(cpu, || TOKEN.load(SeqCst) == 0, 0),
            DONE => return,
            _ => pass(0),
        }
    }
}

fn pass(to: u32) {
    TOKEN.store(to, SeqCst);
    idle::wake(to);
}
