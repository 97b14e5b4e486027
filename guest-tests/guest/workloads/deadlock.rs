//! vCPUs 0 and 1 each hold a mutex and wait for the other's. Neither ends, so the guest does not either.

use crate::barrier::Barrier;
use crate::cpu::Cpu;
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::mutex::Mutex;
use crate::{console, hints, tasks};

static MUTEXES: [Mutex; 2] = [const { Mutex::new() }; 2];
static BOTH_HELD: Barrier = Barrier::new();

/// The workload on this vCPU.
pub fn run(cpu: &'static Cpu) {
    if cpu.index() == 0 {
        console::line(format_args!(
            "guest: vCPUs 0 and 1 wait for each other from now on"
        ));
    }
    tasks::run(cpu, 1, |cpu, _| {
        if hints::on() {
            lock_both::<Hinted>(cpu);
        } else {
            lock_both::<Plain>(cpu);
        }
    });
}

fn lock_both<M: Mode>(cpu: &Cpu) {
    let own = cpu.index() as usize;
    if let Some(mutex) = MUTEXES.get(own) {
        mutex.lock::<M>(cpu);
    }
    BOTH_HELD.wait(cpu);
    if let Some(mutex) = MUTEXES.get(own ^ 1) {
        mutex.lock::<M>(cpu);
    }
}
