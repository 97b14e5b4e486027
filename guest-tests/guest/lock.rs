//! What all locks of the guest have in common: how they are called, and what they do besides locking.

use crate::cpu::Cpu;

/// What a lock does besides locking; a type, so that the code of the other modes is not there.
pub trait Mode {
    /// The lock reports to the host which vCPU holds it and which vCPUs wait.
    const HINTS: bool;
    /// Waiters go idle after a while, and the releaser wakes them.
    const PARK: bool;
}

/// A [`Mode`] made of its two switches.
pub struct With<const HINTS: bool, const PARK: bool>;

impl<const H: bool, const P: bool> Mode for With<H, P> {
    const HINTS: bool = H;
    const PARK: bool = P;
}

/// Nothing but locking.
pub type Plain = With<false, false>;
/// With hints.
pub type Hinted = With<true, false>;

/// A lock. A vCPU that holds a spinlock or waits for one does not preempt its task (`preempt.rs`):
/// the other tasks would spin for the lock on the vCPU that has to release it.
pub trait Lock: Sync + 'static {
    /// Returns when this vCPU (for a mutex: its current task) has the lock.
    fn lock<M: Mode>(&self, cpu: &Cpu);
    /// Releases the lock, in the mode in which it was taken.
    fn unlock<M: Mode>(&self, cpu: &Cpu);
}
