//! A bounded queue between tasks: those of even vCPUs put items in, those of odd ones take them
//! out, with a mutex and two conditions. `acquisitions=` is the number of items of each task.

use super::counter::Counter;
use super::totals;
use crate::condition::Condition;
use crate::config;
use crate::cpu::Cpu;
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::mutex::Mutex;
use crate::{hints, preempt, smp, tasks};

const ROOM: u64 = 3;
const ITEMS: u64 = 1000;

static MUTEX: Mutex = Mutex::new();
static NOT_FULL: Condition = Condition::new();
static NOT_EMPTY: Condition = Condition::new();
/// Items put in and taken out.
static PUT: Counter = Counter::new();
static TAKEN: Counter = Counter::new();

pub fn run(cpu: &'static Cpu) {
    // An odd one out would wait for ever.
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
            while inside() == ROOM {
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
        preempt::undisturbed(cpu, || cpu.stats.iterations.add(1));
    }
}

/// The check: all that was put in was taken out.
pub fn finish() -> bool {
    let done: u64 = totals::sum(|stats| &stats.iterations);
    PUT.get() == TAKEN.get() && PUT.get() + TAKEN.get() == done
}
