//! The queue lock of the guest, compiled for the host: how often it passes over a waiter.

#![allow(dead_code, missing_docs, clippy::extra_unused_type_parameters)] // The lock is the guest's, and uses a part of what stands here for the guest.

use std::cell::{Cell, RefCell};

use cpu::Cpu;
use lock::{Hinted, Lock};
use mcs::Mcs;

#[path = "../guest/lock.rs"]
mod lock;

#[path = "../guest/locks/mcs.rs"]
mod mcs;

mod locks {
    /// A wait, in which what the other vCPUs do is up to the test.
    pub mod waiter {
        use std::marker::PhantomData;

        use crate::cpu::Cpu;

        pub struct Waiter<'a, M>(PhantomData<(&'a Cpu, M)>);

        impl<'a, M> Waiter<'a, M> {
            pub fn new(_: &'a Cpu, _: u64) -> Self {
                Self(PhantomData)
            }

            pub fn spin_or_park(&mut self, _: impl Fn() -> bool, _: impl Fn() -> Option<u32>) {
                crate::MEANWHILE.with_borrow_mut(|meanwhile| meanwhile());
            }

            pub fn done(&mut self) {}
        }
    }
}

mod cpu {
    use std::cell::Cell;

    pub const MAX_CPUS: usize = 4;

    #[derive(Default)]
    pub struct Count(Cell<u64>);

    impl Count {
        pub fn add(&self, more: u64) {
            self.0.set(self.0.get() + more);
        }

        pub fn get(&self) -> u64 {
            self.0.get()
        }
    }

    #[derive(Default)]
    pub struct Stats {
        pub skipped: Count,
    }

    pub struct Cpu {
        index: u32,
        pub stats: Stats,
    }

    impl Cpu {
        pub fn new(index: u32) -> Self {
            Self {
                index,
                stats: Stats::default(),
            }
        }

        pub fn index(&self) -> u32 {
            self.index
        }
    }
}

mod hints {
    use crate::cpu::Cpu;

    /// Whether the waiter is on a host CPU.
    pub fn running(_: u32) -> bool {
        crate::RUNS.get()
    }

    pub fn acquiring<M>(_: &Cpu) {}

    pub fn released<M>(_: &Cpu, _: u64, successor: impl FnOnce() -> Option<u32>) {
        crate::SUCCESSOR.set(successor());
    }
}

mod idle {
    pub fn wake(_: u32) {}
}

mod preempt {
    pub fn disable() {}
    pub fn enable(_: &crate::cpu::Cpu) {}
}

thread_local! {
    static RUNS: Cell<bool> = const { Cell::new(false) };
    /// The vCPU to which the last release has given the lock.
    static SUCCESSOR: Cell<Option<u32>> = const { Cell::new(None) };
    /// What another vCPU does while one waits.
    static MEANWHILE: RefCell<Box<dyn FnMut()>> = RefCell::new(Box::new(|| ()));
}

/// A vCPU waits while another one releases the lock, and takes it again if the waiter did not get it. Returns how
/// often the waiter was passed over before it had the lock.
fn times_passed_over(runs: bool) -> u64 {
    let lock: &'static Mcs = Box::leak(Box::new(Mcs::new()));
    let (owner, waiter) = (Cpu::new(0), Cpu::new(1));
    RUNS.set(runs);
    lock.lock::<Hinted>(&owner);
    MEANWHILE.set(Box::new(move || {
        lock.unlock::<Hinted>(&owner);
        if SUCCESSOR.get().is_none() {
            lock.lock::<Hinted>(&owner);
        }
    }));
    lock.lock::<Hinted>(&waiter);
    assert_eq!(SUCCESSOR.get(), Some(waiter.index()), "it has the lock");
    waiter.stats.skipped.get()
}

#[test]
fn a_waiter_that_does_not_run_is_passed_over_eight_times_and_then_gets_the_lock() {
    assert_eq!(times_passed_over(false), 8);
}

#[test]
fn a_waiter_that_runs_is_never_passed_over() {
    assert_eq!(times_passed_over(true), 0);
}
