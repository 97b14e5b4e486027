//! Nested mutexes: vCPU 0 holds the first for long; each other vCPU holds its own and wants that of
//! the vCPU before it.
//!
//! ```text
//!   vCPU 3 --wants--> 2, held by vCPU 2 --wants--> 1, held by vCPU 1 --wants--> 0, held by vCPU 0
//! ```
//!
//! With little budget for vCPU 0, all of them get on as fast as the budgets of the others carry it.

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

/// A mutex of each vCPU and what it protects.
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

pub fn run(cpu: &'static Cpu) {
    tasks::run(cpu, 1, |cpu, _| {
        if hints::on() {
            turns::<Hinted>(cpu);
        } else {
            turns::<Plain>(cpu);
        }
    });
}

fn turns<M: Mode>(cpu: &'static Cpu) {
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

/// The check: every acquisition has counted.
pub fn finish() -> bool {
    let counted: u64 = LINKS.iter().map(|link| link.counter.get()).sum();
    report::counter(counted);
    counted == totals::sum(|stats| &stats.acquisitions)
}
