//! vCPU 0 takes a lock and wakes vCPU 1, which requests the lock. vCPU 0 releases the lock as soon as it
//! runs again and sees the request. So vCPU 1 waits for the time of the switch to the holder and back.
//!
//! Meant for one host CPU on which vCPU 1 is always the more urgent one, so that the wake-up takes vCPU 0
//! off the CPU while it holds the lock.

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
/// The round in which vCPU 1 requests the lock, and the last one in which it had the lock.
static REQUESTED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    if hints::on() {
        run_rounds::<Hinted>(cpu);
    } else {
        run_rounds::<Plain>(cpu);
    }
}

fn run_rounds<M: Mode>(cpu: &Cpu) {
    match cpu.index() {
        0 => hold::<M>(cpu),
        1 => request::<M>(cpu),
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
        while REQUESTED.load(SeqCst) != round {
            spin_loop();
        }
        LOCK.unlock::<M>(cpu);
        // Otherwise this vCPU would take the lock again before vCPU 1 has had it.
        while SERVED.load(SeqCst) != round {
            idle::sleep_while(cpu, || SERVED.load(SeqCst) != round, 0);
        }
    }
    CALLED.store(DONE, SeqCst);
    idle::wake(1);
}

fn request<M: Mode>(cpu: &Cpu) {
    loop {
        let served = SERVED.load(SeqCst);
        match CALLED.load(SeqCst) {
            DONE => return,
            called if called == served => {
                idle::sleep_while(cpu, || CALLED.load(SeqCst) == served, 0);
            }
            called => {
                REQUESTED.store(called, SeqCst);
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
