//! A sleeping mutex with an owner. A running task may take it before tasks that sleep for it.
//!
//! One word holds the owner and three flags. Without waiters, taking and releasing are one locked
//! instruction each. A task that finds the mutex taken spins for a while as long as the owner runs, then
//! queues and sleeps. As in Linux (`kernel/locking/mutex.c`), unlocking wakes the first waiter but does
//! not hand the mutex over: until that waiter runs, any other task may take the mutex. A mutex that was
//! handed to a sleeper would have no running owner for the time of a wake-up. All running tasks would
//! come to sleep for it, and from then on each acquisition would cost a sleep and a wake-up.
//!
//! # The wait is bounded
//! The first unlock wakes the first waiter. If that waiter finds the mutex taken again, it sets
//! [`HAND_OFF`] in the same instruction in which it sees the owner, and that owner must hand the mutex
//! to it. So a waiter can be overtaken while it wakes up, and then waits for one owner. (If the waiter
//! carried a throttled owner, the waiter runs after the unlock, and that owner has no budget left with
//! which to overtake it.)
//!
//! # No wake-up is lost
//! The flags and the queue change only under the guard. The owner changes without the guard, but never
//! together with a flag, and by compare-and-exchange, which fails if a flag has changed.
//! - A task that queues sets [`WAITERS`] in a word that has an owner. That owner's unlock sees it.
//! - An unlock that sees `WAITERS` without [`WOKEN`] sets `WOKEN` and wakes the first waiter; with
//!   `HAND_OFF` it hands the mutex over and wakes the waiter. The waiter sleeps until then, so it is woken
//!   once, and by this unlock.
//! - An unlock that sees `WOKEN` need not wake: the first waiter is awake (or its waker is about to wake
//!   it), and checks the word once more under the guard before it sleeps. There it finds the mutex
//!   free and takes it, or it leaves `HAND_OFF` to an owner and clears `WOKEN`, and that owner's unlock
//!   wakes it.
//! - A task that leaves the queue owns the mutex, and `WOKEN` and `HAND_OFF` are clear. Its unlock
//!   wakes the next waiter.
//!
//! # Preemption
//! The tick ([`preempt`]) may preempt a task that has the mutex or waits for it, but not
//! - while it spins, because the hint page then states that the whole vCPU spins;
//! - while it unlocks: until the release is counted and the first waiter woken, the host takes this vCPU
//!   for the one that must run, and that means this task;
//! - under the guard, which is a spinlock like any other.
//!
//! The owner's vCPU is named whichever of its tasks runs. The owner runs again there after at most one
//! tick of each ready task of the vCPU.
//!
//! # What the host learns
//! - The guard is a spinlock like any other, with all its hints.
//! - The mutex does not count in the depth of `held`. That depth requests a deferral of microseconds at
//!   the end of a slice, and a mutex may be held for long, even by a task that sleeps. Its releases are
//!   counted, so that a spinning vCPU that was preempted does not carry a former owner.
//! - A vCPU that spins names the owner's vCPU, as for a spinlock.
//! - A vCPU that has nothing to run except tasks which sleep on mutexes publishes one of these waits when
//!   it idles (`tasks`). For the first waiter it names the owner's vCPU, for another waiter the
//!   vCPU of the waiter before it: the other cannot continue before that one has had the mutex, whichever
//!   task takes it meanwhile.
//! - Unlocking rings only to wake a vCPU, or if the host requested it because a waiter's budget carries
//!   this vCPU.
//!
//! So the edges lead along the queue to its first waiter, and from there to the owner. They stay true
//! although no vCPU rings when the owner changes:
//! - The edge of a later waiter: the waiter before it leaves the queue as the owner, which makes the
//!   later waiter the first, with that owner named.
//! - The edge of the first waiter: the owner that it names releases the mutex only by waking it or by
//!   handing over to it. Once awake, the waiter has no edge, so the budgets behind it make it run. It
//!   then takes the mutex, or sleeps again and names the present owner, which `HAND_OFF` keeps.
//!
//! Two small errors remain. A waker that is stopped before it rings is still named, and is carried until
//! it has rung. And a vCPU with several sleeping tasks names another vCPU for one of them only.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cpu::Cpu;
use crate::lock::{Lock, Mode};
use crate::locks::{Tas, Waiter};
use crate::tasks::{self, BlockedOn, NO_TASK, TaskId};
use crate::wait_queue::WaitQueue;
use crate::{hints, preempt};

/// Set in the word while tasks wait.
const WAITERS: u32 = 1 << 31;
/// The first waiter has been woken and has not gone back to sleep.
const WOKEN: u32 = 1 << 30;
/// The first waiter found the mutex taken after it was woken: the next unlock hands the mutex to it.
const HAND_OFF: u32 = 1 << 29;
const OWNER: u32 = HAND_OFF - 1;
/// Spins before a task sleeps, as long as the owner runs: some 20 us, about the cost of sleeping and
/// waking up (so a wait costs at most twice what the better choice would have cost).
const SPINS: u32 = 512;

/// The mutex. Only tasks can take it.
pub struct Mutex {
    /// The owner, and the flags.
    word: AtomicU32,
    guard: Tas,
    waiters: WaitQueue,
}

impl Mutex {
    /// A free mutex.
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(NO_TASK),
            guard: Tas::new(),
            waiters: WaitQueue::new(),
        }
    }

    fn owner(&self) -> Option<TaskId> {
        let owner = self.word.load(Relaxed) & OWNER;
        (owner != NO_TASK).then_some(owner)
    }

    /// Whether `me` owns the mutex. Acquire: the mutex may have been handed over.
    fn is_mine(&self, me: TaskId) -> bool {
        self.word.load(Acquire) & OWNER == me
    }

    /// Takes the mutex if it is free, even if other tasks wait for it. (With [`HAND_OFF`] it is never
    /// free.)
    fn try_take(&self, me: TaskId) -> bool {
        let word = self.word.load(Relaxed);
        word & OWNER == NO_TASK
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
            mine = self.is_mine(me) || self.take_or_demand::<M>(cpu, me);
        }
    }

    /// Spins until `done`, as long as the wait may be short: the owner runs, it has owned the mutex only
    /// briefly, and the vCPU has no other task to run. Returns whether `done` held.
    fn spin<M: Mode>(&self, cpu: &Cpu, me: TaskId, done: impl Fn() -> bool) -> bool {
        preempt::disable();
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let mut owner = NO_TASK;
        let mut left = SPINS;
        let mut is_done = done();
        while !is_done && left > 0 {
            let now = self.word.load(Relaxed) & OWNER;
            if now != NO_TASK && now != me {
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

    /// For the first waiter, after it was woken: takes the mutex, or makes sure that this task is the next
    /// to get it. Returns whether the task has the mutex; if not, the task may sleep again.
    fn take_or_demand<M: Mode>(&self, cpu: &Cpu, me: TaskId) -> bool {
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

    /// Takes the mutex if it is free now, else sets `mark` for its owner. Under the guard.
    fn take_or_mark(&self, me: TaskId, mark: u32) -> bool {
        loop {
            let word = self.word.load(Relaxed);
            if word & OWNER == NO_TASK {
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

    /// Removes the first waiter, which has taken the mutex. Under the guard.
    fn remove_first(&self) {
        self.waiters.pop();
        let gone = if self.waiters.is_empty() { WAITERS } else { 0 };
        self.word.fetch_and(!(gone | WOKEN | HAND_OFF), Relaxed);
    }

    /// Releases the mutex and wakes the first waiter if it sleeps, or hands the mutex to a waiter that set
    /// [`HAND_OFF`].
    #[cold]
    fn unlock_with_waiters<M: Mode>(&self, cpu: &Cpu, me: TaskId) {
        // A first waiter that is awake checks the word before it sleeps.
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
        // A first waiter that was awake sees the word; by now it may even sleep elsewhere.
        if asleep {
            tasks::wake(cpu, first);
        }
        self.released::<M>(cpu, first);
    }

    /// Reports to the host, if it requested that, that `next` must run now.
    #[inline(always)]
    fn released<M: Mode>(&self, cpu: &Cpu, next: TaskId) {
        let next = || (next != NO_TASK).then(|| tasks::vcpu(next));
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
        (before != NO_TASK).then(|| tasks::vcpu(before))
    }
}

impl Lock for Mutex {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        let me = tasks::current(cpu);
        if self
            .word
            .compare_exchange(NO_TASK, me, Acquire, Relaxed)
            .is_err()
        {
            self.wait::<M>(cpu, me);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable();
        let me = tasks::current(cpu);
        if self
            .word
            .compare_exchange(me, NO_TASK, Release, Relaxed)
            .is_ok()
        {
            self.released::<M>(cpu, NO_TASK);
        } else {
            self.unlock_with_waiters::<M>(cpu, me);
        }
        preempt::enable(cpu);
    }
}
