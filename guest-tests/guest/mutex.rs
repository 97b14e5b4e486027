//! A sleeping mutex with an owner, handed directly to the first waiter, and a condition.
//!
//! One word holds the owner and whether tasks wait; without waiters, taking and releasing are one
//! locked instruction each. Waiters queue in order, under a small spinlock.
//!
//! # What the host is told
//! - The spinlock inside is one like any other, with all its hints.
//! - The mutex itself does not count in `held`: that asks for a grace of microseconds at the end of
//!   a slice, and a mutex may be held for long, even by a task that sleeps.
//! - A vCPU that has nothing to run but tasks which sleep on mutexes says so when it idles
//!   (`tasks.rs`).
//! - Handing it on takes at most one ring. If the next owner's vCPU sleeps, it is woken, and since
//!   the host knows for which mutex and owner it slept, a wake-up by this very owner tells that the
//!   mutex has changed hands. If it neither sleeps nor runs, and others sleep, they have named the
//!   old owner to the host: a release ring names the new one. Otherwise there is nothing to tell.

use core::hint::spin_loop;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cpu::Cpu;
use crate::hints;
use crate::locks::{Lock, Mode, Tas};
use crate::tasks::{self, NOBODY, TaskId};

/// Set in the word while tasks wait.
const WAITERS: u32 = 1 << 31;
/// Spins before a task sleeps, as long as the owner runs: some 20 us, about what sleeping and waking
/// up cost (so at worst a wait costs twice what the better choice would have).
const SPINS: u32 = 512;

/// Tasks in order, linked through [`tasks::Task::next`]. Used under a lock.
struct Queue {
    head: AtomicU32,
    tail: AtomicU32,
}

impl Queue {
    const fn new() -> Self {
        Self {
            head: AtomicU32::new(NOBODY),
            tail: AtomicU32::new(NOBODY),
        }
    }

    fn push(&self, task: TaskId) {
        let this = tasks::get(task);
        this.next.store(NOBODY, Relaxed);
        this.queued.store(1, Relaxed);
        match self.tail.load(Relaxed) {
            NOBODY => self.head.store(task, Relaxed),
            last => tasks::get(last).next.store(task, Relaxed),
        }
        self.tail.store(task, Relaxed);
    }

    fn pop(&self) -> Option<TaskId> {
        let task = self.head.load(Relaxed);
        if task == NOBODY {
            return None;
        }
        let next = tasks::get(task).next.load(Relaxed);
        self.head.store(next, Relaxed);
        if next == NOBODY {
            self.tail.store(NOBODY, Relaxed);
        }
        Some(task)
    }

    fn is_empty(&self) -> bool {
        self.head.load(Relaxed) == NOBODY
    }
}

pub struct Mutex {
    /// The owner, and [`WAITERS`].
    word: AtomicU32,
    guard: Tas,
    waiters: Queue,
}

impl Mutex {
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(NOBODY),
            guard: Tas::new(),
            waiters: Queue::new(),
        }
    }

    /// Its name to the host. The lock inside is at another address.
    pub fn name(&self) -> u64 {
        &raw const self.word as u64
    }

    /// The vCPU on which the owner lives.
    pub fn holder(&self) -> Option<u32> {
        match self.word.load(Relaxed) & !WAITERS {
            NOBODY => None,
            owner => Some(tasks::vcpu(owner)),
        }
    }

    #[inline(always)]
    fn try_take(&self, me: TaskId) -> bool {
        self.word
            .compare_exchange(NOBODY, me, Acquire, Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, me: TaskId) {
        if self.spin::<M>(cpu, me) {
            return;
        }
        self.guard.lock::<M>(cpu);
        let mine = self.take_or_mark(me);
        if !mine {
            self.waiters.push(me);
        }
        self.guard.unlock::<M>(cpu);
        if !mine {
            // When it wakes, the mutex has been handed to it.
            tasks::sleep(cpu, Some(self));
        }
    }

    /// Spins for a short wait, if it may be one: nobody sleeps here yet, the owner runs, and there
    /// is nothing else to do. Whether the mutex was taken.
    fn spin<M: Mode>(&self, cpu: &Cpu, me: TaskId) -> bool {
        for _ in 0..SPINS {
            let word = self.word.load(Relaxed);
            if word == NOBODY {
                if self.try_take(me) {
                    return true;
                }
            } else {
                let owner = tasks::vcpu(word & !WAITERS);
                let worth_it = word & WAITERS == 0
                    && owner != cpu.index()
                    && !tasks::others_ready(cpu)
                    && (!M::HINTS || hints::running(owner));
                if !worth_it {
                    return false;
                }
            }
            spin_loop();
        }
        false
    }

    /// Takes the mutex if it is free now, else makes its owner see that tasks wait. Under the guard.
    fn take_or_mark(&self, me: TaskId) -> bool {
        loop {
            let word = self.word.load(Relaxed);
            if word == NOBODY {
                if self.try_take(me) {
                    return true;
                }
            } else if word & WAITERS != 0
                || self
                    .word
                    .compare_exchange(word, word | WAITERS, Relaxed, Relaxed)
                    .is_ok()
            {
                return false;
            }
        }
    }

    #[cold]
    fn hand_on<M: Mode>(&self, cpu: &Cpu) {
        self.guard.lock::<M>(cpu);
        // The mark is set only with a waiter behind it.
        let next = self.waiters.pop().unwrap_or(NOBODY);
        let mark = if self.waiters.is_empty() { 0 } else { WAITERS };
        self.word.store(next | mark, Release);
        self.guard.unlock::<M>(cpu);
        if next == NOBODY {
            return;
        }
        let vcpu = tasks::vcpu(next);
        let rang = tasks::wake(cpu, next);
        if vcpu != cpu.index() {
            hints::handed_over::<M>(cpu, self.name(), vcpu, mark != 0 && !rang);
        }
    }
}

/// For tasks only.
impl Lock for Mutex {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        let me = tasks::current(cpu);
        if !self.try_take(me) {
            self.wait::<M>(cpu, me);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        let me = tasks::current(cpu);
        if self
            .word
            .compare_exchange(me, NOBODY, Release, Relaxed)
            .is_err()
        {
            self.hand_on::<M>(cpu);
        }
    }
}

/// Something that tasks wait for under a mutex. Nobody's vCPU can be named as the one that must run
/// for it to come true.
pub struct Condition {
    guard: Tas,
    waiters: Queue,
}

impl Condition {
    pub const fn new() -> Self {
        Self {
            guard: Tas::new(),
            waiters: Queue::new(),
        }
    }

    /// Releases the mutex, sleeps until a signal, and takes it again.
    pub fn wait<M: Mode>(&self, cpu: &Cpu, mutex: &Mutex) {
        self.guard.lock::<M>(cpu);
        self.waiters.push(tasks::current(cpu));
        self.guard.unlock::<M>(cpu);
        mutex.unlock::<M>(cpu);
        tasks::sleep(cpu, None);
        mutex.lock::<M>(cpu);
    }

    /// Wakes the task that waits longest.
    pub fn signal<M: Mode>(&self, cpu: &Cpu) {
        self.guard.lock::<M>(cpu);
        let first = self.waiters.pop();
        self.guard.unlock::<M>(cpu);
        if let Some(task) = first {
            tasks::wake(cpu, task);
        }
    }
}
