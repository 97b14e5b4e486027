//! Nested mutexes: vCPU 0 holds the first for long; each other vCPU holds its own mutex and waits for
//! that of the vCPU before it.
//!
//! ```text
//!   vCPU 3 --waits for--> mutex 2 of vCPU 2 --waits for--> mutex 1 of vCPU 1 --waits for--> mutex 0
//! ```
//!
//! If vCPU 0 has little budget, all make progress as fast as the budgets of the others carry vCPU 0.

use super::counter::Counter;
use super::run_length::end_time;
use super::totals;
use crate::config;
use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::mutex::Mutex;
use crate::{busy, clock, hints, report, tasks};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// The mutex of one vCPU, and the counter that it protects.
struct Link {
    mutex: Mutex,
    counter: Counter,
}

static LINKS: [Link; MAX_CPUS] = [const {
    Link {
        mutex: Mutex::new(),
        counter: Counter::new(),
    }
}; MAX_CPUS];

/// The workload on this vCPU.
pub fn run(cpu: &'static Cpu) {
    tasks::run(cpu, 1, |cpu, _| {
        if hints::on() {
            run_rounds::<Hinted>(cpu);
        } else {
            run_rounds::<Plain>(cpu);
        }
    });
}

fn run_rounds<M: Mode>(cpu: &'static Cpu) {
    let config = config::get();
    let own = cpu.index() as usize;
    let hold = busy::iterations(config.hold.unwrap_or(5 * MS));
    let outside = busy::iterations(config.outside.unwrap_or(100 * US));
    let end = end_time();
    while clock::now() < end {
        with_link::<M>(cpu, own, || {
            if own == 0 {
                busy::spin(hold);
            } else {
                with_link::<M>(cpu, own - 1, || ());
            }
        });
        busy::spin(outside);
    }
}

fn with_link<M: Mode>(cpu: &'static Cpu, number: usize, inside: impl FnOnce()) {
    let link = &LINKS[number];
    let start = clock::now();
    link.mutex.lock::<M>(cpu);
    let waited = clock::now().saturating_sub(start);
    link.counter.increment();
    inside();
    link.mutex.unlock::<M>(cpu);
    cpu.stats.acquired(clock::to_ns(waited));
}

/// Checks that every acquisition was counted.
pub fn finish() -> bool {
    let counted: u64 = LINKS.iter().map(|link| link.counter.get()).sum();
    report::counter(counted);
    counted == totals::sum(|stats| &stats.acquisitions)
}
