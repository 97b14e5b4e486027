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

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
        let mut state = self.lock();
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
        let mut state = self.lock();
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
        self.lock().closed = true;
        self.interrupt(end_run);
    }

    /// Step 1. `None`: the slot is closed and empty.
    pub(super) fn take(&self) -> Option<V> {
        let mut state = self.lock();
        loop {
            if let Some(vcpu) = state.vcpu.take() {
                return Some(vcpu);
            }
            if state.closed {
                return None;
            }
            state = wait(&self.changed, state);
        }
    }

    /// Step 3. False: the sleep was interrupted, or the slot is closed; the vCPU must not sleep.
    pub(super) fn begin_sleep(&self, handle: H) -> bool {
        let mut state = self.lock();
        if state.is_interrupted() {
            return false;
        }
        state.handle = Some(handle);
        true
    }

    /// Step 4: whether another thread has interrupted the sleep.
    pub(super) fn is_interrupted(&self) -> bool {
        self.lock().is_interrupted()
    }

    /// Step 4: waits before the next `KVM_RUN`, for `time` or until the sleep is interrupted.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        if !state.is_interrupted() {
            wait_timeout(&self.changed, state, time);
        }
    }

    /// Step 5.
    pub(super) fn end_sleep(&self) {
        let mut state = self.lock();
        state.handle = None;
        state.interrupted = false;
    }

    // No code of ours panics while it holds the lock, and every state is valid by itself.
    #[cfg(not(loom))]
    fn lock(&self) -> MutexGuard<'_, SlotState<V, H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(loom)]
    fn lock(&self) -> MutexGuard<'_, SlotState<V, H>> {
        self.state.lock().unwrap()
    }
}

#[cfg(not(loom))]
fn wait<'a, T>(changed: &Condvar, state: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(state).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(loom)]
fn wait<'a, T>(changed: &Condvar, state: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(state).unwrap()
}

#[cfg(not(loom))]
fn wait_timeout<T>(changed: &Condvar, state: MutexGuard<'_, T>, time: Duration) {
    drop(
        changed
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner),
    );
}

#[cfg(loom)]
fn wait_timeout<T>(changed: &Condvar, state: MutexGuard<'_, T>, time: Duration) {
    drop(changed.wait_timeout(state, time).unwrap());
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_slot_returns_the_second_vcpu() {
        let slot = SleepSlot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.take(), Some(1));
        assert!(slot.begin_sleep(()));
        assert_eq!(slot.put(3), Err(3));
        slot.end_sleep();
        assert_eq!(slot.put(4), Ok(()));
    }

    #[test]
    fn an_interruption_before_a_put_ends_the_sleep_of_that_vcpu_and_of_no_other() {
        let slot = SleepSlot::<u8, ()>::new();
        slot.interrupt(|()| unreachable!("no vCPU sleeps"));
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.take(), Some(1));
        assert!(!slot.begin_sleep(()));
        slot.end_sleep();
        assert_eq!(slot.put(2), Ok(()));
        assert_eq!(slot.take(), Some(2));
        assert!(slot.begin_sleep(()));
    }

    #[test]
    fn a_closed_slot_gives_out_the_vcpu_that_it_has_and_takes_no_more() {
        let slot = SleepSlot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        slot.close(|()| unreachable!("no vCPU sleeps"));
        assert_eq!(slot.take(), Some(1));
        assert!(!slot.begin_sleep(()));
        slot.end_sleep();
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.take(), None);
    }
}

/// The protocol under every interleaving. `KVM_RUN` is modelled as a wait that only
/// `immediate_exit` ends, so a lost interruption is a deadlock, which loom reports.
#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::thread::{self, Thread};

    struct Model {
        slot: SleepSlot<u8, Thread>,
        immediate_exit: AtomicBool,
        returned: AtomicUsize,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slot: SleepSlot::new(),
                immediate_exit: AtomicBool::new(false),
                returned: AtomicUsize::new(0),
            })
        }

        fn end_run(&self, sleeping: &Thread) {
            self.immediate_exit.store(true, Ordering::Relaxed);
            sleeping.unpark();
        }

        /// The sleeping thread.
        fn serve(&self) {
            while self.slot.take().is_some() {
                self.immediate_exit.store(false, Ordering::Relaxed);
                if self.slot.begin_sleep(thread::current()) {
                    while !self.immediate_exit.load(Ordering::Relaxed) {
                        thread::park();
                    }
                    assert!(
                        self.slot.is_interrupted(),
                        "nothing else ends a run in this model"
                    );
                }
                self.slot.end_sleep();
                self.immediate_exit.store(false, Ordering::Relaxed);
                self.returned.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    #[test]
    fn loom_a_put_and_its_interruption_may_come_in_either_order() {
        loom::model(|| {
            let model = Model::new();
            let sleeping = thread::spawn({
                let model = model.clone();
                move || model.serve()
            });
            let interrupting = thread::spawn({
                let model = model.clone();
                move || model.slot.interrupt(|thread| model.end_run(thread))
            });
            assert_eq!(model.slot.put(1), Ok(()));
            interrupting.join().unwrap();
            model.slot.close(|thread| model.end_run(thread));
            sleeping.join().unwrap();
            assert_eq!(model.returned.load(Ordering::Acquire), 1);
        });
    }

    #[test]
    fn loom_closing_gives_back_the_vcpu_in_the_slot() {
        loom::model(|| {
            let model = Model::new();
            let sleeping = thread::spawn({
                let model = model.clone();
                move || model.serve()
            });
            let put = model.slot.put(1).is_ok();
            model.slot.close(|thread| model.end_run(thread));
            sleeping.join().unwrap();
            assert!(put && model.returned.load(Ordering::Acquire) == 1);
        });
    }
}
