//! The hand-over of the vCPU threads within one process (`Handoff` of `vmm/host`, which is private there),
//! step by step.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};

struct HandoffState<T> {
    value: Option<T>,
    taker: Option<Thread>,
}

/// Room for one value.
pub struct Handoff<T>(Arc<Mutex<HandoffState<T>>>);

impl<T> Clone for Handoff<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Handoff<T> {
    pub fn new() -> Self {
        let (value, taker) = (None, None);
        Self(Arc::new(Mutex::new(HandoffState { value, taker })))
    }

    fn lock(&self) -> MutexGuard<'_, HandoffState<T>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    pub fn put(&self, value: T) {
        let taker = {
            let mut state = self.lock();
            state.value = Some(value);
            state.taker.take()
        };
        if let Some(taker) = taker {
            taker.unpark();
        }
    }

    pub fn take(&self) -> T {
        loop {
            {
                let mut state = self.lock();
                if let Some(value) = state.value.take() {
                    return value;
                }
                state.taker = Some(thread::current());
            }
            thread::park();
        }
    }
}
