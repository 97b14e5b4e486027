//! vCPU 0 takes a lock and wakes vCPU 1, which wants the lock; vCPU 0 releases it as soon as it runs
//! again and sees that. So what vCPU 1 waits is the way to the holder and back.
//!
//! Meant for one host CPU, on which a claim of vCPU 1 that is always the more urgent takes vCPU 0 off
//! the CPU by the wake-up, with the lock.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::run_length::RunLength;
use crate::cpu::Cpu;
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::locks::Tas;
use crate::{clock, hints, idle};

const DONE: u32 = u32::MAX;

static LOCK: Tas = Tas::new();
/// The round for which vCPU 1 is called, or [`DONE`].
static CALLED: AtomicU32 = AtomicU32::new(0);
/// The round in which it wants the lock, and the one in which it had it.
static WANTED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

pub fn run(cpu: &Cpu) {
    if hints::on() {
        play::<Hinted>(cpu);
    } else {
        play::<Plain>(cpu);
    }
}

fn play<M: Mode>(cpu: &Cpu) {
    match cpu.index() {
        0 => hold::<M>(cpu),
        1 => want::<M>(cpu),
        _ => {}
    }
}

fn hold<M: Mode>(cpu: &Cpu) {
    let length = RunLength::from_now();
    let mut round = 0;
    while !length.is_over(round.into()) {
        round += 1;
        LOCK.lock::<M>(cpu);
        CALLED.store(round, SeqCst);
        idle::wake(1);
        while WANTED.load(SeqCst) != round {
            spin_loop();
        }
        LOCK.unlock::<M>(cpu);
        // Or it would take the lock again before vCPU 1 has looked.
        while SERVED.load(SeqCst) != round {
            idle::sleep_while(cpu, || SERVED.load(SeqCst) != round, 0);
        }
    }
    CALLED.store(DONE, SeqCst);
    idle::wake(1);
}

fn want<M: Mode>(cpu: &Cpu) {
    loop {
        let served = SERVED.load(SeqCst);
        match CALLED.load(SeqCst) {
            DONE => return,
            called if called == served => {
                idle::sleep_while(cpu, || CALLED.load(SeqCst) == served, 0);
            }
            called => {
                WANTED.store(called, SeqCst);
                let start = clock::now();
                LOCK.lock::<M>(cpu);
                let waited = clock::now().saturating_sub(start);
                LOCK.unlock::<M>(cpu);
                cpu.stats.acquired(clock::to_ns(waited));
                SERVED.store(called, SeqCst);
                idle::wake(0);
            }
        }
    }
}
