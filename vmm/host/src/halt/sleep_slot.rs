//! The hand-over between a berth's thread and those who put vCPUs there and call them back.
//!
//! ```text
//!   berth's thread                             others
//!   1. take what was offered, or wait          a. put: offer, wake the thread
//!   2. finish pending accesses, which clears   b. recall: set RECALLED, and if there is a handle
//!      immediate_exit; set the debug flags        (step 3), set immediate_exit and signal
//!   3. enter: if RECALLED, go to 5; else
//!      leave the handle of immediate_exit
//!   4. KVM_RUN; if it was interrupted and
//!      nobody set RECALLED, again
//!   5. leave: take the handle away and
//!      clear RECALLED
//!   6. clear immediate_exit and the flags,
//!      give the vCPU away, go to 1
//! ```
//!
//! 1, 3, 5, a and b happen under one lock, each as a whole. So:
//!
//! * A recall before 3 is seen by 3; one between 3 and 5 sets `immediate_exit`, which nothing
//!   clears before 6, and its signal ends a `KVM_RUN` that had begun. None is missed.
//! * The handle is only there while the thread owns the vCPU, so a recall never stops a vCPU that
//!   has gone to somebody else, and the thread that it signals is alive.
//! * A recall after 5, or before a, stays set and ends the *next* stay at 3. An offer and the recall
//!   that is meant for it may therefore come in either order; the price is that a recall that loses
//!   against a wake may end one later stay early, which looks like a wake without cause.
//!
//! A vCPU whose own thread sleeps for it comes to step 2 without a and 1.
//!
//! Checked under loom.

use std::time::Duration;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What the lock protects.
struct State<V, H> {
    offered: Option<V>,
    /// The vCPU in the slot's hands: its handle, between steps 3 and 5.
    asleep: Option<H>,
    recalled: bool,
    closed: bool,
}

impl<V, H> State<V, H> {
    /// Whether nothing shall sleep here now.
    fn wanted(&self) -> bool {
        self.recalled || self.closed
    }
}

/// Place for one `V`; `H` is what makes its sleep end.
pub(super) struct Slot<V, H> {
    state: Mutex<State<V, H>>,
    changed: Condvar,
}

impl<V, H> Slot<V, H> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                offered: None,
                asleep: None,
                recalled: false,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Step a.
    ///
    /// # Errors
    /// Gives it back if there is one already or the slot is closed.
    pub(super) fn put(&self, vcpu: V) -> Result<(), V> {
        let mut state = self.lock();
        if state.closed || state.offered.is_some() || state.asleep.is_some() {
            return Err(vcpu);
        }
        state.offered = Some(vcpu);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Step b. `wake` ends a sleep; it is called under the lock, only if there is one.
    pub(super) fn recall(&self, wake: impl FnOnce(&H)) {
        let mut state = self.lock();
        state.recalled = true;
        if let Some(handle) = &state.asleep {
            wake(handle);
        }
        drop(state);
        // For a thread in `pause`.
        self.changed.notify_all();
    }

    /// Recalls, and from here on takes nothing more.
    pub(super) fn close(&self, wake: impl FnOnce(&H)) {
        self.lock().closed = true;
        self.recall(wake);
    }

    /// Step 1. `None`: closed and empty.
    pub(super) fn next(&self) -> Option<V> {
        let mut state = self.lock();
        loop {
            if let Some(vcpu) = state.offered.take() {
                return Some(vcpu);
            }
            if state.closed {
                return None;
            }
            state = wait(&self.changed, state);
        }
    }

    /// Step 3. False: recalled, or closed; do not sleep.
    pub(super) fn enter(&self, handle: H) -> bool {
        let mut state = self.lock();
        let wanted = state.wanted();
        if !wanted {
            state.asleep = Some(handle);
        }
        !wanted
    }

    /// Step 4: whether somebody wants the vCPU back.
    pub(super) fn is_recalled(&self) -> bool {
        self.lock().wanted()
    }

    /// Step 4: waits before the next try, at most `time` or until recalled.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        if !state.wanted() {
            wait_timeout(&self.changed, state, time);
        }
    }

    /// Step 5.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.asleep = None;
        state.recalled = false;
    }

    // No code of ours panics while it holds the lock, and every state is valid by itself.
    #[cfg(not(loom))]
    fn lock(&self) -> MutexGuard<'_, State<V, H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(loom)]
    fn lock(&self) -> MutexGuard<'_, State<V, H>> {
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
    fn a_full_slot_gives_the_second_one_back() {
        let slot = Slot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.next(), Some(1));
        assert!(slot.enter(()));
        assert_eq!(slot.put(3), Err(3));
        slot.leave();
        assert_eq!(slot.put(4), Ok(()));
    }

    #[test]
    fn a_recall_that_comes_before_its_offer_is_kept_for_it_and_for_no_other() {
        let slot = Slot::<u8, ()>::new();
        slot.recall(|()| unreachable!("nobody sleeps"));
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!(slot.next(), Some(1));
        assert!(!slot.enter(()));
        slot.leave();
        assert_eq!(slot.put(2), Ok(()));
        assert_eq!(slot.next(), Some(2));
        assert!(slot.enter(()));
    }

    #[test]
    fn a_closed_slot_gives_out_what_it_has_and_takes_no_more() {
        let slot = Slot::<u8, ()>::new();
        assert_eq!(slot.put(1), Ok(()));
        slot.close(|()| unreachable!("nobody sleeps"));
        assert_eq!(slot.next(), Some(1));
        assert!(!slot.enter(()));
        slot.leave();
        assert_eq!(slot.put(2), Err(2));
        assert_eq!(slot.next(), None);
    }
}

/// The protocol under every interleaving. `KVM_RUN` is modelled as a wait that only
/// `immediate_exit` ends, so a lost recall is a deadlock, which loom reports.
#[cfg(all(test, loom))]
#[allow(clippy::unwrap_used)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::thread::{self, Thread};

    struct Model {
        slot: Slot<u8, Thread>,
        immediate_exit: AtomicBool,
        returned: AtomicUsize,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                slot: Slot::new(),
                immediate_exit: AtomicBool::new(false),
                returned: AtomicUsize::new(0),
            })
        }

        fn wake(&self, sleeper: &Thread) {
            self.immediate_exit.store(true, Ordering::Relaxed);
            sleeper.unpark();
        }

        /// The berth's thread.
        fn live(&self) {
            while self.slot.next().is_some() {
                self.immediate_exit.store(false, Ordering::Relaxed);
                if self.slot.enter(thread::current()) {
                    while !self.immediate_exit.load(Ordering::Relaxed) {
                        thread::park();
                    }
                    assert!(
                        self.slot.is_recalled(),
                        "no other thing wakes in this model"
                    );
                }
                self.slot.leave();
                self.immediate_exit.store(false, Ordering::Relaxed);
                self.returned.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    #[test]
    fn loom_an_offer_and_its_recall_meet_in_either_order() {
        loom::model(|| {
            let model = Model::new();
            let berth = thread::spawn({
                let model = model.clone();
                move || model.live()
            });
            let recaller = thread::spawn({
                let model = model.clone();
                move || model.slot.recall(|sleeper| model.wake(sleeper))
            });
            assert_eq!(model.slot.put(1), Ok(()));
            recaller.join().unwrap();
            model.slot.close(|sleeper| model.wake(sleeper));
            berth.join().unwrap();
            assert_eq!(model.returned.load(Ordering::Acquire), 1);
        });
    }

    #[test]
    fn loom_closing_brings_back_what_is_in_the_slot() {
        loom::model(|| {
            let model = Model::new();
            let berth = thread::spawn({
                let model = model.clone();
                move || model.live()
            });
            let put = model.slot.put(1).is_ok();
            model.slot.close(|sleeper| model.wake(sleeper));
            berth.join().unwrap();
            assert!(put && model.returned.load(Ordering::Acquire) == 1);
        });
    }
}
