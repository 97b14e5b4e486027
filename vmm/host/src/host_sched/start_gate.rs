//! Holds threads back until all of them have started.

use crate::sync::{Condvar, Mutex};

/// Holds threads back until it is opened.
#[derive(Debug, Default)]
pub(super) struct StartGate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl StartGate {
    /// Lets all threads pass, now and later.
    pub(super) fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }

    /// Waits until the gate is open.
    pub(super) fn pass(&self) {
        drop(
            self.opened
                .wait_while(self.is_open.lock(), |is_open| !*is_open),
        );
    }
}
