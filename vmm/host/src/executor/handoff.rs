//! One value from thread to thread: left by one, taken by another that sleeps until it is there.
//!
//! `std`'s channels would do, but they wake the taker while they hold a lock of their own. On one host
//! CPU, where executor and vCPU threads meet, it runs at once, finds the lock taken, and both sleep and
//! wake once more: lock-holder preemption, three changes of thread in place of one.

use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex};

/// What is between the two.
#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    /// Sleeps until there is a value.
    taker: Option<Thread>,
    closed: bool,
}

/// Room for one value. Any thread may leave one, one thread takes them.
#[derive(Debug)]
pub(super) struct Handoff<T>(Arc<Mutex<Place<T>>>);

impl<T> Clone for Handoff<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Handoff<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Place {
            value: None,
            taker: None,
            closed: false,
        })))
    }

    /// Leaves `value`.
    ///
    /// # Errors
    /// Gives it back if nobody will take it, or another one is there.
    pub(super) fn leave(&self, value: T) -> Result<(), T> {
        let taker = {
            let mut place = self.0.lock();
            if place.closed || place.value.is_some() {
                return Err(value);
            }
            place.value = Some(value);
            place.taker.take()
        };
        if let Some(taker) = taker {
            taker.unpark();
        }
        Ok(())
    }

    /// Takes the next value, however long that takes to come. `None`: none will.
    pub(super) fn take(&self) -> Option<T> {
        loop {
            {
                let mut place = self.0.lock();
                if place.value.is_some() || place.closed {
                    return place.value.take();
                }
                place.taker = Some(thread::current());
            }
            // Returns for nothing, too, if this thread was kicked meanwhile.
            thread::park();
        }
    }

    /// Nothing can be left from now on. What is there can still be taken.
    pub(super) fn close(&self) {
        let taker = {
            let mut place = self.0.lock();
            place.closed = true;
            place.taker.take()
        };
        if let Some(taker) = taker {
            taker.unpark();
        }
    }
}

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
                    back.leave(value + 1)
                        .expect("it is taken before the next is left");
                }
            }
        });
        for value in 0..1000 {
            there.leave(value).expect("the last one was answered");
            assert_eq!(back.take(), Some(value + 1));
        }
        there.close();
        echo.join().expect("it ends when the place is closed");
        assert_eq!(there.leave(1), Err(1));
    }

    #[test]
    fn there_is_room_for_one_and_what_is_there_outlives_closing() {
        let place = Handoff::new();
        assert_eq!(place.leave("a"), Ok(()));
        assert_eq!(place.leave("b"), Err("b"));
        place.close();
        assert_eq!((place.take(), place.take()), (Some("a"), None));
    }

    #[test]
    fn unparking_the_taker_for_something_else_takes_nothing() {
        let place = Handoff::new();
        thread::current().unpark();
        let giver = thread::spawn({
            let place = place.clone();
            move || place.leave(7)
        });
        assert_eq!(place.take(), Some(7));
        assert_eq!(giver.join().expect("it has left it"), Ok(()));
    }
}
