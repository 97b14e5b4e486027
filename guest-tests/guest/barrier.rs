//! A barrier for all vCPUs. Waiting vCPUs idle, so that they do not take CPU time from the vCPUs for
//! which they wait.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::cpu::Cpu;
use crate::{idle, smp};

/// A barrier that can be used again.
pub struct Barrier {
    waiting: AtomicU32,
    round: AtomicU32,
}

impl Barrier {
    /// A barrier at which no vCPU waits.
    pub const fn new() -> Self {
        Self {
            waiting: AtomicU32::new(0),
            round: AtomicU32::new(0),
        }
    }

    /// Returns when every vCPU has called this function.
    pub fn wait(&self, cpu: &Cpu) {
        let round = self.round.load(Acquire);
        if self.waiting.fetch_add(1, SeqCst) + 1 == smp::count() {
            self.waiting.store(0, Relaxed);
            self.round.store(round + 1, SeqCst);
            (0..smp::count())
                .filter(|&other| other != cpu.index())
                .for_each(|other| {
                    idle::wake(other);
                });
        } else {
            idle::wait_while(cpu, || self.round.load(SeqCst) == round, 0);
        }
    }
}
