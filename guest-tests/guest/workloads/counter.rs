//! The data that a lock protects.

use core::cell::UnsafeCell;

/// A number, on purpose not atomic: increments are lost if the lock does not hold.
#[repr(align(64))]
pub struct Counter(UnsafeCell<u64>);

// SAFETY: used only under its lock, and at the end by vCPU 0 alone. That this holds is what the
// check at the end tests.
unsafe impl Sync for Counter {}

impl Counter {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// Adds one. For who holds the lock.
    pub fn increment(&self) {
        // SAFETY: the caller holds the lock. Volatile: the load and the store stay apart.
        unsafe {
            let value = self.0.get().read_volatile();
            self.0.get().write_volatile(value + 1);
        }
    }

    /// The value. For who holds the lock, or when all are done.
    pub fn get(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.0.get().read_volatile() }
    }
}
