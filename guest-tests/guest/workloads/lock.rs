//! Every vCPU takes the lock, counts and works under it, releases it, works outside.

use core::hint::spin_loop;

use super::configured_lock::{self, Job};
use super::counter::Counter;
use super::run_length::end_time;
use super::totals;
use crate::config::{self, Config, Hints, LockKind};
use crate::cpu::Cpu;
use crate::lock::{Lock, Mode};
use crate::{busy, clock, console, hints, preempt, report, smp, tasks};

static COUNTER: Counter = Counter::new();

/// How long a vCPU stays inside and outside the lock.
struct Pace {
    hold: u64,
    outside: Outside,
}

enum Outside {
    /// So many nanoseconds of CPU time.
    Work(u64),
    /// So many nanoseconds of guest time, whether the vCPU runs or not.
    Wait(u64),
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

impl Pace {
    fn same_for_all(config: &Config) -> Self {
        Self {
            hold: config.hold.unwrap_or(2 * US),
            outside: Outside::Work(config.outside.unwrap_or(2 * US)),
        }
    }

    /// vCPU 0, to which the host gives a small hard budget, holds the lock for long and nearly all the
    /// time; the others take it briefly now and then.
    fn throttled_holder(config: &Config, cpu: &Cpu) -> Self {
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

/// The loop of one task, or of a vCPU without tasks.
struct Loop {
    cpu: &'static Cpu,
    pace: Pace,
    number: u32,
}

/// The workload on this vCPU, with the same times on all.
pub fn run(cpu: &'static Cpu) {
    run_tasks(cpu, |cpu, number| {
        let pace = Pace::same_for_all(config::get());
        configured_lock::with(Loop { cpu, pace, number });
    });
}

/// The workload on this vCPU, with vCPU 0 in the lock most of the time.
pub fn run_throttled_holder(cpu: &'static Cpu) {
    run_tasks(cpu, |cpu, number| {
        let pace = Pace::throttled_holder(config::get(), cpu);
        configured_lock::with(Loop { cpu, pace, number });
    });
}

/// A spinlock needs tasks only if there are several.
fn run_tasks(cpu: &'static Cpu, body: tasks::Body) {
    let Config { lock, tasks, .. } = *config::get();
    if tasks > 1 || matches!(lock, LockKind::Mutex) {
        tasks::run(cpu, tasks, body);
    } else {
        body(cpu, 0);
    }
}

/// This task's share of its vCPU's acquisitions.
fn share(goal: u64, number: u32) -> u64 {
    let tasks = u64::from(config::get().tasks);
    goal / tasks + u64::from(u64::from(number) < goal % tasks)
}

impl Job for Loop {
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
        let Config {
            acquisitions: goal,
            log,
            ..
        } = *config::get();
        let mut left = goal.map_or(u64::MAX, |goal| share(goal, self.number));
        let end = if goal.is_some() { u64::MAX } else { end_time() };
        loop {
            let start = clock::now();
            if left == 0 || start >= end {
                break;
            }
            left -= 1;
            lock.lock::<M>(self.cpu);
            let got = clock::now();
            COUNTER.increment();
            busy::spin(hold);
            if log {
                // Before the release, because a release that rings may take long.
                let times = [start, got, clock::now()];
                preempt::with_disabled(self.cpu, || stats.log(times));
            }
            lock.unlock::<M>(self.cpu);
            let waited = clock::to_ns(got.saturating_sub(start));
            preempt::with_disabled(self.cpu, || stats.acquired(waited));
            busy::spin(work);
            if pause > 0 {
                let until = clock::now().saturating_add(pause);
                while clock::now() < until {
                    spin_loop();
                }
            }
            tasks::yield_now(self.cpu);
        }
    }
}

/// Checks the counter and prints a line.
pub fn finish() -> bool {
    let config = config::get();
    let sum: u64 = totals::sum(|stats| &stats.acquisitions);
    let elapsed = totals::max(|stats| &stats.elapsed_ns);
    let longest = totals::max(|stats| &stats.wait_max_ns);
    let counter = COUNTER.get();
    report::counter(counter);
    let good = counter == sum;
    let rate = u128::from(sum) * 1_000_000_000 / u128::from(elapsed.max(1));
    console::line(format_args!(
        "guest: lock {:?} cpus {} hints {} wait {}: {sum} acquisitions, {rate} per second, \
         longest wait {} us, counter {}",
        config.lock,
        smp::count(),
        hints_used(config.hints),
        if config.park { "halt" } else { "spin" },
        longest / US,
        if good { "right" } else { "WRONG" },
    ));
    if config.hints == Hints::On && !hints::on() {
        console::line(format_args!("guest: no host that understands hints"));
    }
    good
}

/// Prints the longest wait of each vCPU.
pub fn print_waits() -> bool {
    for cpu in smp::cpus() {
        console::line(format_args!(
            "guest: vCPU {}: {} acquisitions, longest wait {} us",
            cpu.index(),
            cpu.stats.acquisitions.get(),
            cpu.stats.wait_max_ns.get() / US,
        ));
    }
    true
}

fn hints_used(wanted: Hints) -> &'static str {
    match wanted {
        Hints::Stock => "stock",
        Hints::On if hints::on() => "on",
        Hints::On | Hints::Off => "off",
    }
}
