//! Tasks that get on only if they preempt each other: none of them yields.
//!
//! The first task of each vCPU takes a mutex and, on even vCPUs, spins under it until each of its
//! siblings has seen that; a sibling spins until there is something new to see. So each acquisition
//! there takes a tick by which the owner loses its vCPU to a sibling, and others by which it gets it
//! back. Odd vCPUs have the first task only: they sleep for the mutex, of which the owner may be ready
//! and not running, and hold it for `hold=`. `acquisitions=` is the number of rounds of each vCPU; none
//! begins a round before all have ended the one before, so they contend in each.
//!
//! All this spinning also checks that a task finds its registers as it left them.

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
static DISTURBED: AtomicBool = AtomicBool::new(false);
static ROOMS: [Room; MAX_CPUS] = [const { Room::new() }; MAX_CPUS];

/// What the tasks of a vCPU tell each other.
struct Room {
    /// The round that the owner is in, and the last one that each sibling has seen.
    round: AtomicU64,
    seen: [AtomicU64; MAX_TASKS],
}

impl Room {
    const fn new() -> Self {
        Self {
            round: AtomicU64::new(0),
            seen: [const { AtomicU64::new(0) }; MAX_TASKS],
        }
    }
}

pub fn run(cpu: &'static Cpu) {
    tasks::run(cpu, tasks_of(cpu), |cpu, number| {
        let room = &ROOMS[cpu.index() as usize];
        match (number, hints::on()) {
            (0, true) => own::<Hinted>(cpu, room),
            (0, false) => own::<Plain>(cpu, room),
            _ => see(room, &room.seen[number as usize]),
        }
    });
}

fn has_siblings(cpu: &Cpu) -> bool {
    cpu.index().is_multiple_of(2)
}

fn tasks_of(cpu: &Cpu) -> u32 {
    if has_siblings(cpu) {
        config::get().tasks
    } else {
        1
    }
}

fn rounds() -> u64 {
    config::get().acquisitions.unwrap_or(ROUNDS)
}

fn own<M: Mode>(cpu: &Cpu, room: &Room) {
    let siblings = &room.seen[1..tasks_of(cpu) as usize];
    let hold = match has_siblings(cpu) {
        true => 0,
        false => busy::iterations(config::get().hold.unwrap_or(0)),
    };
    for round in 1..=rounds() {
        let start = clock::now();
        MUTEX.lock::<M>(cpu);
        let waited = clock::now().saturating_sub(start);
        COUNTER.increment();
        room.round.store(round, Relaxed);
        for seen in siblings {
            spin_until(seen, round);
        }
        busy::spin(hold);
        end_round::<M>(cpu, round * u64::from(smp::count()));
        MUTEX.unlock::<M>(cpu);
        preempt::undisturbed(cpu, || cpu.stats.acquired(clock::to_ns(waited)));
    }
    room.round.store(rounds().saturating_add(1), Relaxed);
}

/// Waits until all have counted, under the mutex.
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

/// The last thing to see is that the owner has ended: until then its vCPU has something to run.
fn see(room: &Room, seen: &AtomicU64) {
    for round in 1..=rounds().saturating_add(1) {
        spin_until(&room.round, round);
        seen.store(round, Relaxed);
    }
}

fn spin_until(word: &AtomicU64, value: u64) {
    if !witness::spins_undisturbed(word, value) {
        DISTURBED.store(true, Relaxed);
    }
}

/// The check, and a line for people.
pub fn finish() -> bool {
    let acquisitions = totals::sum(|stats| &stats.acquisitions);
    let preemptions = totals::sum(|stats| &stats.task_preemptions);
    let counter = COUNTER.get();
    report::counter(counter);
    let counted = counter == acquisitions;
    let undisturbed = !DISTURBED.load(Relaxed);
    let right = |good| if good { "right" } else { "WRONG" };
    console::line(format_args!(
        "guest: {acquisitions} acquisitions, tasks preempted {preemptions} times, counter {}, \
         registers {}",
        right(counted),
        right(undisturbed),
    ));
    counted && undisturbed
}
