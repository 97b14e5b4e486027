//! Locks, atomics and parking, which are `std`'s, or under `--cfg loom` those of loom, so that
//! `scripts/loom` can run a protocol under every interleaving of its steps.
//!
//! A lock here is not poisoned by a panic: no code panics halfway through a change that it makes
//! under a lock, so the data stays valid, and the other threads still have to end the run.

#![cfg_attr(
    loom,
    allow(dead_code, unused_imports, reason = "models use a part of it")
)]

use std::time::Duration;

#[cfg(loom)]
use loom as imp;
#[cfg(not(loom))]
use std as imp;

pub(crate) use imp::sync::{Arc, MutexGuard, atomic};
pub(crate) use imp::thread;

/// A mutual exclusion lock that cannot be poisoned.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(imp::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(imp::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(imp::sync::Condvar::new())
    }

    /// Waits for a notification; may return without one.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0
            .wait(guard)
            .unwrap_or_else(|error| error.into_inner())
    }

    /// Waits until `condition` is false.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Waits for a notification, at most for `timeout`; may return without either. Under loom no
    /// time passes, and only a notification ends it.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        self.0
            .wait_timeout(guard, timeout)
            .unwrap_or_else(|error| error.into_inner())
            .0
    }

    /// Waits until `condition` is false, at most for `timeout`.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        // A timeout that no clock can express is none.
        let Some(deadline) = std::time::Instant::now().checked_add(timeout) else {
            return self.wait_while(guard, condition);
        };
        while condition(&mut guard) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self.wait_timeout(guard, left);
        }
        guard
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_holder_panicked_still_guards_its_value() {
        let lock = Arc::new(Mutex::new(1));
        let holder = thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let mut value = lock.lock();
                *value = 2;
                panic!("on purpose");
            }
        });
        assert!(holder.join().is_err());
        assert_eq!(*lock.lock(), 2);
    }

    #[test]
    fn a_wait_ends_when_its_time_is_over_and_when_its_condition_is_false() {
        let (lock, changed) = (Mutex::new(0), Condvar::new());
        let value = changed.wait_timeout_while(lock.lock(), Duration::ZERO, |_| true);
        assert_eq!(*value, 0);
        let value = changed.wait_timeout_while(value, Duration::MAX, |value| *value != 0);
        let value = changed.wait_while(value, |value| *value != 0);
        assert_eq!(*value, 0);
    }
}
