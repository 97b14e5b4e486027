//! The hand-over of a vCPU to the thread on which it sleeps, and the interruption of that sleep.
//!
//! ```text
//!   sleeping thread                            other threads
//!   1. take the vCPU that was put, or wait     a. put: leave the vCPU, notify the thread
//!   2. complete pending accesses, which        b. interrupt: set INTERRUPTED, and if there is a
//!      clears immediate_exit; set the debug       handle (step 3), set immediate_exit and signal
//!      flags
//!   3. begin: if INTERRUPTED, go to 5; else
//!      leave the handle of immediate_exit
//!   4. KVM_RUN; again, if a signal ended it
//!      and INTERRUPTED is not set
//!   5. end: take the handle away and clear
//!      INTERRUPTED
//!   6. clear immediate_exit and the flags,
//!      give the vCPU away, go to 1
//! ```
//!
//! 1, 3, 5, a and b happen under one lock, each as a whole. So:
//!
//! * Step 3 sees an interruption that came before it. An interruption between 3 and 5 sets
//!   `immediate_exit`, which nothing clears before 6, and its signal ends a `KVM_RUN` that had begun. None
//!   is lost.
//! * The handle is only there while the sleeping thread owns the vCPU. So an interruption never stops a
//!   vCPU that another thread owns by then, and the thread that it signals is alive.
//! * An interruption after 5, or before a, stays set and ends the *next* sleep at 3. So a put and the
//!   interruption that is meant for it may come in either order. The price: an interruption that comes just
//!   after the vCPU woke may end a later sleep early, which looks like a wake without cause.
//!
//! A vCPU that sleeps on the thread that always runs it comes to step 2 without a and 1.
//!
//! Checked under loom.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// What the lock protects.
struct SlotState<V, H> {
    /// The vCPU that was put and not taken yet.
    vcpu: Option<V>,
    /// The handle of the vCPU that sleeps, between steps 3 and 5.
    handle: Option<H>,
    interrupted: bool,
    closed: bool,
}

impl<V, H> SlotState<V, H> {
    /// Whether no vCPU may sleep now.
    fn is_interrupted(&self) -> bool {
        self.interrupted || self.closed
    }
}

/// Holds one `V` for the sleeping thread, and the handle `H` by which its sleep is interrupted.
pub(super) struct SleepSlot<V, H> {
    state: Mutex<SlotState<V, H>>,
    changed: Condvar,
}

impl<V, H> SleepSlot<V, H> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(SlotState {
                vcpu: None,
                handle: None,
                interrupted: false,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Step a.
    ///
    /// # Errors
    /// Returns `vcpu` if the slot has one already or is closed.
    pub(super) fn put(&self, vcpu: V) -> Result<(), V> {
        let mut state = self.state.lock();
        if state.closed || state.vcpu.is_some() || state.handle.is_some() {
            return Err(vcpu);
        }
        state.vcpu = Some(vcpu);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Step b. If a vCPU sleeps, `end_run` ends its `KVM_RUN`; it is called under the lock.
    pub(super) fn interrupt(&self, end_run: impl FnOnce(&H)) {
        let mut state = self.state.lock();
        state.interrupted = true;
        if let Some(handle) = &state.handle {
            end_run(handle);
        }
        drop(state);
        // For a thread in `pause`.
        self.changed.notify_all();
    }

    /// Interrupts the sleep. From here on every sleep ends at once, and the slot takes no more vCPUs.
    pub(super) fn close(&self, end_run: impl FnOnce(&H)) {
        self.state.lock().closed = true;
        self.interrupt(end_run);
    }

    /// Step 1. `None`: the slot is closed and empty.
    pub(super) fn take(&self) -> Option<V> {
        let mut state = self.state.lock();
        loop {
            if let Some(vcpu) = state.vcpu.take() {
                return Some(vcpu);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state);
        }
    }

    /// Step 3. False: the sleep was interrupted, or the slot is closed; the vCPU must not sleep.
    pub(super) fn begin_sleep(&self, handle: H) -> bool {
        let mut state = self.state.lock();
        if state.is_interrupted() {
            return false;
        }
        state.handle = Some(handle);
        true
    }

    /// Step 4: whether another thread has interrupted the sleep.
    pub(super) fn is_interrupted(&self) -> bool {
        self.state.lock().is_interrupted()
    }

    /// Step 4: waits before the next `KVM_RUN`, for `time` or until the sleep is interrupted.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.state.lock();
        if !state.is_interrupted() {
            drop(self.changed.wait_timeout(state, time));
        }
    }

    /// Step 5.
    pub(super) fn end_sleep(&self) {
        let mut state = self.state.lock();
        state.handle = None;
        state.interrupted = false;
    }
}

#[cfg(test)]
mod tests;
