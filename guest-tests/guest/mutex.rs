//! A sleeping mutex with an owner, which who runs may take before those who sleep; and a condition.
//!
//! One word holds the owner and three flags; without waiters, taking and releasing are one locked
//! instruction each. Who finds it taken spins as long as the owner runs, for a while, then queues and
//! sleeps. As in Linux (`kernel/locking/mutex.c`), unlocking wakes the first waiter and hands nothing
//! over: until that runs, whoever comes by may take the mutex. Handed to a sleeper, it would be
//! nobody's for the time of a wake-up, all who run would come to sleep for it, and from then on each
//! acquisition would cost a sleep and a wake-up.
//!
//! # The wait is bounded
//! The first waiter is woken by the first unlock. If it wakes in vain it sets [`HAND_OFF`], in the same
//! instruction in which it sees an owner, and that owner must give the mutex to it. So it is overtaken
//! while it wakes up, and then waits for one owner. (If it carried a throttled owner it is the one
//! that runs after the unlock, and that owner has nothing left to overtake it with.)
//!
//! # No wake-up is lost
//! The flags, and the queue, change under the guard only; the owner changes without it, but never
//! together with a flag, and by compare-and-exchange, which fails if a flag has changed.
//! - Who queues sets [`WAITERS`] in a word with an owner. That owner's unlock sees it.
//! - An unlock that sees `WAITERS` without [`WOKEN`] sets `WOKEN` and wakes the first waiter, or, with
//!   `HAND_OFF`, hands over and wakes it. It sleeps until then, so it is woken once, and by this one.
//! - An unlock that sees `WOKEN` may leave the waking be: the first waiter is awake (or its waker is
//!   about to wake it), and looks at the word once more under the guard before it sleeps. There it
//!   finds the mutex free and takes it, or leaves `HAND_OFF` to an owner and clears `WOKEN`; that
//!   owner's unlock wakes it.
//! - Whoever leaves the queue owns the mutex, and `WOKEN` and `HAND_OFF` are clear: its unlock looks
//!   after the next.
//!
//! # Preemption
//! The tick ([`preempt`]) may take the vCPU from a task that has the mutex or waits for it, but not
//! - while it spins: the hint page says meanwhile that the whole vCPU does;
//! - while it unlocks: until the release is counted and the first waiter woken, the host takes this vCPU
//!   for the one that must run, and means this task;
//! - under the guard, a spinlock like any other.
//!
//! The owner's vCPU is named as ever, whichever of its tasks runs: the owner comes back there in its
//! turn, after a tick of each ready sibling at most.
//!
//! # What the host is told
//! - The spinlock inside is one like any other, with all its hints.
//! - The mutex itself does not count in the depth of `held`: that asks for a grace of microseconds at
//!   the end of a slice, and a mutex may be held for long, even by a task that sleeps. Its releases
//!   count: a spinner that was preempted does not carry a former owner.
//! - A vCPU that spins names the owner's vCPU, like one that spins for a spinlock.
//! - A vCPU that has nothing to run but tasks which sleep on mutexes says so when it idles
//!   (`tasks.rs`). For the first waiter it names the owner's vCPU, for another that of the waiter before
//!   it: the other cannot go on before that one has had the mutex, whoever takes it meanwhile.
//! - Unlocking rings only to wake, or if the host asked for it because a waiter's budget paid.
//!
//! So the edges lead along the queue to its first, and from there to the owner. They stay right though
//! nobody rings when the owner changes. Another's: the waiter before it leaves the queue as the owner,
//! which makes the other the first, with that owner named. The first's: the owner that it names lets
//! go of the mutex only by waking it, or handing over to it. Once awake it has no edge, so the budgets
//! behind it make it run, and it looks: it takes the mutex or sleeps again, naming the present owner,
//! which `HAND_OFF` keeps. What stays wrong is small: a waker that is stopped before it rings is still
//! named, and carried until it has rung; and a vCPU with several sleeping tasks names somebody for
//! one of them only.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cpu::Cpu;
use crate::lock::{Lock, Mode};
use crate::locks::{Tas, Waiter};
use crate::tasks::{self, BlockedOn, NOBODY, TaskId};
use crate::wait_queue::WaitQueue;
use crate::{hints, preempt};

/// Set in the word while tasks wait.
const WAITERS: u32 = 1 << 31;
/// The first waiter has been woken and has not gone back to sleep.
const WOKEN: u32 = 1 << 30;
/// The first waiter has woken in vain: the next to unlock hands the mutex to it.
const HAND_OFF: u32 = 1 << 29;
const OWNER: u32 = HAND_OFF - 1;
/// Spins before a task sleeps, as long as the owner runs: some 20 us, about what sleeping and waking
/// up cost (so at worst a wait costs twice what the better choice would have).
const SPINS: u32 = 512;

pub struct Mutex {
    /// The owner, and the flags.
    word: AtomicU32,
    guard: Tas,
    waiters: WaitQueue,
}

impl Mutex {
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(NOBODY),
            guard: Tas::new(),
            waiters: WaitQueue::new(),
        }
    }

    fn owner(&self) -> Option<TaskId> {
        let owner = self.word.load(Relaxed) & OWNER;
        (owner != NOBODY).then_some(owner)
    }

    /// Whether `me` has it. Acquire: it may have been handed over.
    fn is_mine(&self, me: TaskId) -> bool {
        self.word.load(Acquire) & OWNER == me
    }

    /// Takes the mutex if it is free, whoever waits for it. (With [`HAND_OFF`] it never is.)
    fn try_take(&self, me: TaskId) -> bool {
        let word = self.word.load(Relaxed);
        word & OWNER == NOBODY
            && self
                .word
                .compare_exchange(word, word | me, Acquire, Relaxed)
                .is_ok()
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu, me: TaskId) {
        if self.spin::<M>(cpu, me, || self.try_take(me)) {
            return;
        }
        self.guard.lock::<M>(cpu);
        let mut mine = self.take_or_mark(me, WAITERS);
        if !mine {
            self.waiters.push(me);
        }
        self.guard.unlock::<M>(cpu);
        while !mine {
            tasks::sleep(cpu, Some(self));
            mine = self.is_mine(me) || self.insist::<M>(cpu, me);
        }
    }

    /// Spins until `done`, as long as it may be a short wait: the owner runs, has not been it for
    /// long, and there is nothing else to do. Whether it was done.
    fn spin<M: Mode>(&self, cpu: &Cpu, me: TaskId, done: impl Fn() -> bool) -> bool {
        preempt::disable(cpu);
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let mut owner = NOBODY;
        let mut left = SPINS;
        let mut is_done = done();
        while !is_done && left > 0 {
            let now = self.word.load(Relaxed) & OWNER;
            if now != NOBODY && now != me {
                let vcpu = tasks::vcpu(now);
                let worth_it = vcpu != cpu.index()
                    && !tasks::others_ready(cpu)
                    && (!M::HINTS || hints::running(vcpu));
                if !worth_it {
                    break;
                }
            }
            if now != owner {
                (owner, left) = (now, SPINS);
            }
            left -= 1;
            waiter.spin(
                || self.owner() == Some(owner),
                || self.owner().map(tasks::vcpu),
            );
            is_done = done();
        }
        waiter.done();
        preempt::enable(cpu);
        is_done
    }

    /// For the first waiter, awake: takes the mutex, or sees to it that it is the next to get it. If
    /// it does not come soon, the task is ready to sleep again.
    fn insist<M: Mode>(&self, cpu: &Cpu, me: TaskId) -> bool {
        self.guard.lock::<M>(cpu);
        let taken = self.take_or_mark(me, HAND_OFF);
        if taken {
            self.remove_first();
        }
        self.guard.unlock::<M>(cpu);
        if taken || self.spin::<M>(cpu, me, || self.is_mine(me)) {
            return true;
        }
        self.guard.lock::<M>(cpu);
        let mine = self.is_mine(me);
        if !mine {
            tasks::get(me).parked.store(1, Relaxed);
            self.word.fetch_and(!WOKEN, Relaxed);
        }
        self.guard.unlock::<M>(cpu);
        mine
    }

    /// Takes the mutex if it is free now, else leaves `mark` for its owner to see. Under the guard.
    fn take_or_mark(&self, me: TaskId, mark: u32) -> bool {
        loop {
            let word = self.word.load(Relaxed);
            if word & OWNER == NOBODY {
                if self.try_take(me) {
                    return true;
                }
            } else if word & mark != 0
                || self
                    .word
                    .compare_exchange(word, word | mark, Relaxed, Relaxed)
                    .is_ok()
            {
                return false;
            }
        }
    }

    /// The first waiter has taken the mutex. Under the guard.
    fn remove_first(&self) {
        self.waiters.pop();
        let gone = if self.waiters.is_empty() { WAITERS } else { 0 };
        self.word.fetch_and(!(gone | WOKEN | HAND_OFF), Relaxed);
    }

    /// Frees the mutex and wakes the first waiter if it sleeps, or hands over if that insists.
    #[cold]
    fn unlock_with_waiters<M: Mode>(&self, cpu: &Cpu, me: TaskId) {
        // An awake first waiter looks at the word before it sleeps.
        let awake = me | WAITERS | WOKEN;
        let free = WAITERS | WOKEN;
        if self
            .word
            .compare_exchange(awake, free, Release, Relaxed)
            .is_ok()
        {
            return self.released::<M>(cpu, self.waiters.first());
        }
        self.guard.lock::<M>(cpu);
        let word = self.word.load(Relaxed);
        let first = self.waiters.first();
        let asleep = word & WOKEN == 0;
        if word & HAND_OFF != 0 {
            self.waiters.pop();
            let mark = if self.waiters.is_empty() { 0 } else { WAITERS };
            self.word.store(first | mark, Release);
        } else {
            self.word.store(free, Release);
        }
        self.guard.unlock::<M>(cpu);
        // One that was awake sees the word; by now it may even sleep elsewhere.
        if asleep {
            tasks::wake(cpu, first);
        }
        self.released::<M>(cpu, first);
    }

    /// Tells the host, if it asked, that `next` is the one that must run now.
    #[inline(always)]
    fn released<M: Mode>(&self, cpu: &Cpu, next: TaskId) {
        let next = || (next != NOBODY).then(|| tasks::vcpu(next));
        hints::mutex_released::<M>(cpu, self.name(), next);
    }
}

impl BlockedOn for Mutex {
    /// The guard inside is at another address.
    fn name(&self) -> u64 {
        &raw const self.word as u64
    }

    /// The vCPU of the waiter before `task`; for the first waiter, that of the owner.
    fn ahead(&self, task: TaskId) -> Option<u32> {
        if self.waiters.first() == task {
            return self.owner().map(tasks::vcpu);
        }
        let before = tasks::get(task).before.load(Relaxed);
        (before != NOBODY).then(|| tasks::vcpu(before))
    }
}

/// For tasks only.
impl Lock for Mutex {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        let me = tasks::current(cpu);
        if self
            .word
            .compare_exchange(NOBODY, me, Acquire, Relaxed)
            .is_err()
        {
            self.wait::<M>(cpu, me);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable(cpu);
        let me = tasks::current(cpu);
        if self
            .word
            .compare_exchange(me, NOBODY, Release, Relaxed)
            .is_ok()
        {
            self.released::<M>(cpu, NOBODY);
        } else {
            self.unlock_with_waiters::<M>(cpu, me);
        }
        preempt::enable(cpu);
    }
}
