//! The data that a lock protects.

use core::cell::UnsafeCell;

/// A number that is not atomic on purpose: increments are lost if the lock does not exclude.
#[repr(align(64))]
pub struct Counter(UnsafeCell<u64>);

// SAFETY: used only under its lock, and at the end by vCPU 0 alone. The check at the end tests that the
// lock excludes.
unsafe impl Sync for Counter {}

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// Adds one. The caller must hold the lock.
    pub fn increment(&self) {
        // SAFETY: the caller holds the lock. Volatile: the load and the store stay apart.
        unsafe {
            let value = self.0.get().read_volatile();
            self.0.get().write_volatile(value + 1);
        }
    }

    /// The value. The caller must hold the lock, or all other vCPUs have finished.
    pub fn get(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.0.get().read_volatile() }
    }
}
