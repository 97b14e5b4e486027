//! Test-and-test-and-set: unfair, so a waiter that does not run delays no other.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::{Lock, Mode};
use crate::locks::waiter::Waiter;
use crate::{hints, idle, preempt};

const _: () = assert!(MAX_CPUS <= 64, "one bit each in `sleepers`");

#[repr(align(64))]
pub struct Tas {
    /// The holder's index plus one; 0 when free.
    word: AtomicU32,
    /// A bit for each vCPU that sleeps or is about to (with [`Mode::PARK`]).
    sleepers: AtomicU64,
}

impl Tas {
    /// A free lock.
    pub const fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            sleepers: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    fn try_lock(&self, cpu: &Cpu) -> bool {
        self.word.load(Relaxed) == 0
            && self
                .word
                .compare_exchange(0, cpu.index() + 1, Acquire, Relaxed)
                .is_ok()
    }

    #[cold]
    fn wait<M: Mode>(&self, cpu: &Cpu) {
        let mut waiter = Waiter::<M>::new(cpu, self.name());
        let held = || self.word.load(SeqCst) != 0;
        let holder = || self.word.load(Relaxed).checked_sub(1);
        let me = 1 << cpu.index();
        if M::PARK {
            self.sleepers.fetch_or(me, SeqCst);
        }
        while !self.try_lock(cpu) {
            waiter.spin_or_park(held, holder);
        }
        if M::PARK {
            self.sleepers.fetch_and(!me, SeqCst);
        }
        waiter.done();
    }

    /// Wakes one sleeper: the next by index, so that each is woken in its turn.
    #[cold]
    fn wake_one(&self, cpu: &Cpu, sleepers: u64) {
        let first = cpu.index() + 1;
        let distance = sleepers.rotate_right(first % u64::BITS).trailing_zeros();
        idle::wake((first + distance) % u64::BITS);
    }

    fn name(&self) -> u64 {
        &raw const *self as u64
    }
}

impl Lock for Tas {
    #[inline(always)]
    fn lock<M: Mode>(&self, cpu: &Cpu) {
        preempt::disable();
        hints::acquiring::<M>(cpu);
        if !self.try_lock(cpu) {
            self.wait::<M>(cpu);
        }
    }

    #[inline(always)]
    fn unlock<M: Mode>(&self, cpu: &Cpu) {
        if M::PARK {
            // This writes, then reads the sleepers; a sleeper writes, then reads the word.
            self.word.swap(0, SeqCst);
            let sleepers = self.sleepers.load(SeqCst);
            if sleepers != 0 {
                self.wake_one(cpu, sleepers);
            }
        } else {
            self.word.store(0, Release);
        }
        hints::released::<M>(cpu, self.name(), || None);
        preempt::enable(cpu);
    }
}
