//! Every vCPU takes the lock, counts and works under it, releases it, works outside.

use core::cell::UnsafeCell;
use core::hint::spin_loop;

use super::{all, end_time};
use crate::config::{self, Config};
use crate::cpu::Cpu;
use crate::locks::{self, Job, Lock, Mode};
use crate::{busy, clock, console, hints, report, smp};

/// The data that the lock protects, on purpose not atomic.
#[repr(align(64))]
struct Counter(UnsafeCell<u64>);

// SAFETY: used only under the lock, and at the end by vCPU 0 alone. That this holds is what the
// check at the end tests.
unsafe impl Sync for Counter {}

static COUNTER: Counter = Counter(UnsafeCell::new(0));

impl Counter {
    fn increment(&self) {
        // SAFETY: the caller holds the lock. Volatile: the load and the store stay apart.
        unsafe {
            let value = self.0.get().read_volatile();
            self.0.get().write_volatile(value + 1);
        }
    }

    fn get(&self) -> u64 {
        // SAFETY: as above, or all are done.
        unsafe { self.0.get().read_volatile() }
    }
}

/// How long a vCPU stays inside and outside the lock.
pub struct Pace {
    hold: u64,
    outside: Outside,
}

enum Outside {
    /// So many nanoseconds of CPU time.
    Work(u64),
    /// So many nanoseconds of guest time, whoever runs.
    Wait(u64),
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

impl Pace {
    pub fn same_for_all(config: &Config) -> Self {
        Self {
            hold: config.hold.unwrap_or(2 * US),
            outside: Outside::Work(config.outside.unwrap_or(2 * US)),
        }
    }

    /// vCPU 0, which the host gives a small hard budget, holds the lock for long and nearly all the
    /// time; the others want it briefly now and then.
    pub fn throttled_holder(config: &Config, cpu: &Cpu) -> Self {
        if cpu.index() == 0 {
            Self {
                hold: config.hold.unwrap_or(2 * MS),
                outside: Outside::Work(10 * US),
            }
        } else {
            Self {
                hold: US,
                outside: Outside::Wait(config.outside.unwrap_or(MS)),
            }
        }
    }
}

struct Loop<'a> {
    cpu: &'a Cpu,
    pace: Pace,
}

/// The workload on one vCPU.
pub fn run(cpu: &Cpu, pace: Pace) {
    locks::with_configured(Loop { cpu, pace });
}

impl Job for Loop<'_> {
    fn run<L: Lock, M: Mode>(self, lock: &'static L) {
        let stats = &self.cpu.stats;
        let hold = busy::iterations(self.pace.hold);
        let work = match self.pace.outside {
            Outside::Work(ns) => busy::iterations(ns),
            Outside::Wait(_) => 0,
        };
        let pause = match self.pace.outside {
            Outside::Work(_) => 0,
            Outside::Wait(ns) => clock::from_ns(ns),
        };
        let goal = config::get().acquisitions;
        let end = end_time();
        loop {
            let start = clock::now();
            let over = goal.map_or(start >= end, |goal| stats.acquisitions.get() >= goal);
            if over {
                break;
            }
            lock.lock::<M>(self.cpu);
            let waited = clock::now().saturating_sub(start);
            COUNTER.increment();
            busy::spin(hold);
            lock.unlock::<M>(self.cpu);
            stats.acquired(clock::to_ns(waited));
            busy::spin(work);
            if pause > 0 {
                let until = clock::now().saturating_add(pause);
                while clock::now() < until {
                    spin_loop();
                }
            }
        }
    }
}

/// The check, and a line for people.
pub fn finish() -> bool {
    let config = config::get();
    let sum: u64 = all().map(|cpu| cpu.stats.acquisitions.get()).sum();
    let elapsed = all()
        .map(|cpu| cpu.stats.elapsed_ns.get())
        .max()
        .unwrap_or(0);
    let longest = all()
        .map(|cpu| cpu.stats.wait_max_ns.get())
        .max()
        .unwrap_or(0);
    let counter = COUNTER.get();
    report::counter(counter);
    let good = counter == sum;
    let rate = u128::from(sum) * 1_000_000_000 / u128::from(elapsed.max(1));
    console::line(format_args!(
        "guest: lock {:?} cpus {} hints {} wait {}: {sum} acquisitions, {rate} per second, \
         longest wait {} us, counter {}",
        config.lock,
        smp::count(),
        on_off(hints::on()),
        if config.park { "halt" } else { "spin" },
        longest / US,
        if good { "right" } else { "WRONG" },
    ));
    if config.hints && !hints::on() {
        console::line(format_args!("guest: no host that understands hints"));
    }
    good
}

/// The longest wait of each vCPU.
pub fn print_waits() -> bool {
    for cpu in all() {
        console::line(format_args!(
            "guest: vCPU {}: {} acquisitions, longest wait {} us",
            cpu.index(),
            cpu.stats.acquisitions.get(),
            cpu.stats.wait_max_ns.get() / US,
        ));
    }
    true
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
