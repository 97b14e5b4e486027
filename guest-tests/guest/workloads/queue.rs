//! A bounded queue between tasks: tasks of even vCPUs put items in, and tasks of odd vCPUs take them
//! out, with a mutex and two conditions. `acquisitions=` is the number of items of each task.

use super::counter::Counter;
use super::totals;
use crate::condition::Condition;
use crate::config;
use crate::cpu::Cpu;
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::mutex::Mutex;
use crate::{hints, preempt, smp, tasks};

/// Items that the queue can hold.
const CAPACITY: u64 = 3;
const ITEMS: u64 = 1000;

static MUTEX: Mutex = Mutex::new();
static NOT_FULL: Condition = Condition::new();
static NOT_EMPTY: Condition = Condition::new();
/// Items put in and taken out.
static PUT: Counter = Counter::new();
static TAKEN: Counter = Counter::new();

/// The workload on this vCPU.
pub fn run(cpu: &'static Cpu) {
    // A last vCPU without a partner would wait for ever.
    if cpu.index() < smp::count() & !1 {
        tasks::run(cpu, config::get().tasks, |cpu, _| {
            if hints::on() {
                items::<Hinted>(cpu);
            } else {
                items::<Plain>(cpu);
            }
        });
    }
}

fn items<M: Mode>(cpu: &Cpu) {
    let puts = cpu.index().is_multiple_of(2);
    let inside = || PUT.get() - TAKEN.get();
    for _ in 0..config::get().acquisitions.unwrap_or(ITEMS) {
        MUTEX.lock::<M>(cpu);
        if puts {
            while inside() == CAPACITY {
                NOT_FULL.wait::<M>(cpu, &MUTEX);
            }
            PUT.increment();
        } else {
            while inside() == 0 {
                NOT_EMPTY.wait::<M>(cpu, &MUTEX);
            }
            TAKEN.increment();
        }
        MUTEX.unlock::<M>(cpu);
        let other = if puts { &NOT_EMPTY } else { &NOT_FULL };
        other.signal::<M>(cpu);
        preempt::with_disabled(cpu, || cpu.stats.iterations.add(1));
    }
}

/// Checks that every item that was put in was taken out.
pub fn finish() -> bool {
    let done: u64 = totals::sum(|stats| &stats.iterations);
    PUT.get() == TAKEN.get() && PUT.get() + TAKEN.get() == done
}
