//! One value from thread to thread: one thread puts it, another sleeps until it is there and takes it.
//!
//! `std`'s channels would do, but they wake the taker while they hold a lock of their own. On one host
//! CPU, where executor and vCPU threads meet, the taker runs at once, finds the lock taken, and both sleep
//! and wake once more: lock-holder preemption, three changes of thread in place of one. Checked under
//! loom (`scripts/loom`).

use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex};

/// What is between the two threads.
#[derive(Debug)]
struct HandoffState<T> {
    value: Option<T>,
    /// Sleeps until there is a value.
    taker: Option<Thread>,
    closed: bool,
}

/// Room for one value. Any thread may put one, one thread takes them.
#[derive(Debug)]
pub(super) struct Handoff<T>(Arc<Mutex<HandoffState<T>>>);

impl<T> Clone for Handoff<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Handoff<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(HandoffState {
            value: None,
            taker: None,
            closed: false,
        })))
    }

    /// Puts `value` there for the taker.
    ///
    /// # Errors
    /// Returns `value` if the handoff is closed, or the last value has not been taken.
    pub(super) fn put(&self, value: T) -> Result<(), T> {
        let taker = {
            let mut state = self.0.lock();
            if state.closed || state.value.is_some() {
                return Err(value);
            }
            state.value = Some(value);
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.unpark();
        }
        Ok(())
    }

    /// Waits for the next value and takes it. `None`: the handoff is closed and empty.
    pub(super) fn take(&self) -> Option<T> {
        loop {
            {
                let mut state = self.0.lock();
                if state.value.is_some() || state.closed {
                    return state.value.take();
                }
                state.taker = Some(thread::current());
            }
            // Also returns without a value, for example when this thread was kicked meanwhile.
            thread::park();
        }
    }

    /// From now on no value can be put. One that is there can still be taken.
    pub(super) fn close(&self) {
        let taker = {
            let mut state = self.0.lock();
            state.closed = true;
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.unpark();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_one_by_one_and_each_waits_for_its_taker() {
        let (there, back) = (Handoff::new(), Handoff::new());
        let echo = thread::spawn({
            let (there, back) = (there.clone(), back.clone());
            move || {
                while let Some(value) = there.take() {
                    back.put(value + 1)
                        .expect("it is taken before the next one is put");
                }
            }
        });
        for value in 0..1000 {
            there.put(value).expect("the last one was answered");
            assert_eq!(back.take(), Some(value + 1));
        }
        there.close();
        echo.join().expect("it ends when the handoff is closed");
        assert_eq!(there.put(1), Err(1));
    }

    #[test]
    fn there_is_room_for_one_value_and_a_value_that_is_there_outlives_closing() {
        let handoff = Handoff::new();
        assert_eq!(handoff.put("a"), Ok(()));
        assert_eq!(handoff.put("b"), Err("b"));
        handoff.close();
        assert_eq!((handoff.take(), handoff.take()), (Some("a"), None));
    }

    #[test]
    fn unparking_the_taker_for_another_reason_takes_nothing() {
        let handoff = Handoff::new();
        thread::current().unpark();
        let giver = thread::spawn({
            let handoff = handoff.clone();
            move || handoff.put(7)
        });
        assert_eq!(handoff.take(), Some(7));
        assert_eq!(giver.join().expect("it has put it"), Ok(()));
    }
}
