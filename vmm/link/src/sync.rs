//! Locks, atomics and futexes, which are `std`'s and the kernel's, or under `--cfg loom` those of loom.

#[cfg(loom)]
use loom as imp;
#[cfg(not(loom))]
use std as imp;

#[cfg_attr(loom, path = "sync/futex_model.rs")]
mod futex;

pub(crate) use futex::{Bell, FutexWord, WaitedFor, wait_any};
pub(crate) use imp::sync::{Arc, atomic};

/// A mutual exclusion lock that cannot be poisoned.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(imp::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Waits for the lock.
    pub(crate) fn lock(&self) -> imp::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }
}
