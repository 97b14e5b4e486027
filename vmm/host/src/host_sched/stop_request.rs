//! Stopping a vCPU's thread, wherever it is.
//!
//! ```text
//!   stopper                               the vCPU's thread
//!   a. set `requested`                    1. at first: publish `tid`;
//!   b. a full fence                          after a signal: clear `immediate_exit`
//!   c. set `immediate_exit`               2. a full fence
//!   d. signal the thread that `tid`       3. end if `requested` is set
//!      names; 0: it has not started,      4. KVM_RUN; go to 1 after a signal, or to 3
//!      or has ended
//! ```
//!
//! If step 3 does not see step a, then because of the two fences step 1 comes before steps c and d. So the
//! stopper finds the thread's `tid`, and the flag that it sets stays set: `KVM_RUN` returns at once, or if
//! the thread is inside already, the signal ends it. Checked under loom (`scripts/loom`).

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

/// `kvm_run.immediate_exit` of a vCPU.
pub(super) trait ImmediateExitFlag {
    fn set(&self, on: bool);
}

/// Makes the thread of one vCPU leave `KVM_RUN` for good.
#[derive(Debug)]
pub(super) struct StopRequest<F> {
    requested: AtomicBool,
    /// `None` when the thread has ended: the flag keeps KVM's file of the vCPU open.
    immediate_exit: Mutex<Option<F>>,
    /// Kernel id of the thread; 0 until it has started, and after its end.
    tid: AtomicI32,
}

impl<F: ImmediateExitFlag> StopRequest<F> {
    pub(super) fn new(immediate_exit: F) -> Self {
        Self {
            requested: AtomicBool::new(false),
            immediate_exit: Mutex::new(Some(immediate_exit)),
            tid: AtomicI32::new(0),
        }
    }

    /// Steps 1 and 2: the calling thread, with kernel id `tid`, runs the vCPU from now on.
    pub(super) fn begin(&self, tid: i32) {
        self.tid.store(tid, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The vCPU's thread is done.
    pub(super) fn end(&self) {
        self.tid.store(0, Ordering::Relaxed);
        *self.immediate_exit.lock() = None;
    }

    /// Steps a to d. `signal` sends the thread with this kernel id a signal that interrupts it.
    pub(super) fn request(&self, signal: impl FnOnce(i32)) {
        self.requested.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Some(immediate_exit) = &*self.immediate_exit.lock() {
            immediate_exit.set(true);
        }
        let tid = self.tid.load(Ordering::Relaxed);
        if tid != 0 {
            signal(tid);
        }
    }

    /// Steps 1 and 2 after a signal. `immediate_exit` is that of this vCPU.
    pub(super) fn clear_immediate_exit(&self, immediate_exit: &F) {
        immediate_exit.set(false);
        fence(Ordering::SeqCst);
    }

    /// Step 3.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
