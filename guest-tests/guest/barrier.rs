//! All vCPUs meet. Waiting vCPUs idle, so they do not eat the time of those that they wait for.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use crate::cpu::Cpu;
use crate::{idle, smp};

pub struct Barrier {
    arrived: AtomicU32,
    round: AtomicU32,
}

impl Barrier {
    pub const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            round: AtomicU32::new(0),
        }
    }

    /// Returns once every vCPU has called it.
    pub fn wait(&self, cpu: &Cpu) {
        let round = self.round.load(Acquire);
        if self.arrived.fetch_add(1, SeqCst) + 1 == smp::count() {
            self.arrived.store(0, Relaxed);
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
