//! Tasks that make progress only if they preempt each other: none of them yields.
//!
//! The first task of each vCPU takes a mutex. On even vCPUs it then spins under the mutex until each other
//! task of the vCPU has seen the new round; those tasks spin until there is a new round. So each
//! acquisition there needs one tick by which the owner loses its vCPU to another task, and further ticks
//! by which the owner runs again. Odd vCPUs have only the first task. It sleeps for the mutex, whose
//! owner may be ready and not running, and holds the mutex for `hold=`. `acquisitions=` is the number of
//! rounds of each vCPU. No vCPU begins a round before all have ended the previous one, so they contend in
//! each round.
//!
//! The spins also check that a task finds its registers as it left them.

mod witness;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::counter::Counter;
use super::totals;
use crate::condition::Condition;
use crate::config;
use crate::cpu::{Cpu, MAX_CPUS, MAX_TASKS};
use crate::lock::{Hinted, Lock, Mode, Plain};
use crate::mutex::Mutex;
use crate::{busy, clock, console, hints, preempt, report, smp, tasks};

const ROUNDS: u64 = 20;

static MUTEX: Mutex = Mutex::new();
static ROUND_ENDED: Condition = Condition::new();
static COUNTER: Counter = Counter::new();
/// A task found its registers changed.
static REGISTERS_CHANGED: AtomicBool = AtomicBool::new(false);
static PROGRESS: [Progress; MAX_CPUS] = [const { Progress::new() }; MAX_CPUS];

/// How far the tasks of a vCPU are.
struct Progress {
    /// The round of the first task, and the last round that each other task has seen.
    round: AtomicU64,
    seen: [AtomicU64; MAX_TASKS],
}

impl Progress {
    const fn new() -> Self {
        Self {
            round: AtomicU64::new(0),
            seen: [const { AtomicU64::new(0) }; MAX_TASKS],
        }
    }
}

/// The workload on this vCPU.
pub fn run(cpu: &'static Cpu) {
    tasks::run(cpu, tasks_of(cpu), |cpu, number| {
        let progress = &PROGRESS[cpu.index() as usize];
        match (number, hints::on()) {
            (0, true) => own::<Hinted>(cpu, progress),
            (0, false) => own::<Plain>(cpu, progress),
            _ => observe(progress, &progress.seen[number as usize]),
        }
    });
}

fn has_other_tasks(cpu: &Cpu) -> bool {
    cpu.index().is_multiple_of(2)
}

fn tasks_of(cpu: &Cpu) -> u32 {
    if has_other_tasks(cpu) {
        config::get().tasks
    } else {
        1
    }
}

fn rounds() -> u64 {
    config::get().acquisitions.unwrap_or(ROUNDS)
}

fn own<M: Mode>(cpu: &Cpu, progress: &Progress) {
    let others = &progress.seen[1..tasks_of(cpu) as usize];
    let hold = match has_other_tasks(cpu) {
        true => 0,
        false => busy::iterations(config::get().hold.unwrap_or(0)),
    };
    for round in 1..=rounds() {
        let start = clock::now();
        MUTEX.lock::<M>(cpu);
        let waited = clock::now().saturating_sub(start);
        COUNTER.increment();
        progress.round.store(round, Relaxed);
        for seen in others {
            spin_until(seen, round);
        }
        busy::spin(hold);
        end_round::<M>(cpu, round * u64::from(smp::count()));
        MUTEX.unlock::<M>(cpu);
        preempt::with_disabled(cpu, || cpu.stats.acquired(clock::to_ns(waited)));
    }
    progress.round.store(rounds().saturating_add(1), Relaxed);
}

/// Waits under the mutex until all vCPUs have counted the round.
fn end_round<M: Mode>(cpu: &Cpu, all: u64) {
    if COUNTER.get() == all {
        for _ in 1..smp::count() {
            ROUND_ENDED.signal::<M>(cpu);
        }
    }
    while COUNTER.get() < all {
        ROUND_ENDED.wait::<M>(cpu, &MUTEX);
    }
}

/// Spins for each round and for the end of the first task: until then the vCPU has a task to run.
fn observe(progress: &Progress, seen: &AtomicU64) {
    for round in 1..=rounds().saturating_add(1) {
        spin_until(&progress.round, round);
        seen.store(round, Relaxed);
    }
}

fn spin_until(word: &AtomicU64, value: u64) {
    if !witness::spin_keeps_registers(word, value) {
        REGISTERS_CHANGED.store(true, Relaxed);
    }
}

/// Checks the results and prints a line.
pub fn finish() -> bool {
    let acquisitions = totals::sum(|stats| &stats.acquisitions);
    let preemptions = totals::sum(|stats| &stats.task_preemptions);
    let counter = COUNTER.get();
    report::counter(counter);
    let counted = counter == acquisitions;
    let unchanged = !REGISTERS_CHANGED.load(Relaxed);
    let right = |good| if good { "right" } else { "WRONG" };
    console::line(format_args!(
        "guest: {acquisitions} acquisitions, tasks preempted {preemptions} times, counter {}, \
         registers {}",
        right(counted),
        right(unchanged),
    ));
    counted && unchanged
}
