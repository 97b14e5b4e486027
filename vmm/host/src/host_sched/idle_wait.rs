//! The wait of an idle vCPU for a wake by its siblings.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// Keeps a wake for a vCPU that is idle, or will be.
#[derive(Debug)]
pub(super) struct IdleWait {
    /// Whether a wake came since the last wait.
    woken: Mutex<bool>,
    changed: Condvar,
}

impl IdleWait {
    pub(super) fn new() -> Self {
        Self {
            woken: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Wakes the vCPU, now or when it becomes idle next.
    pub(super) fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for a wake, at most for `limit`, and takes it.
    pub(super) fn wait(&self, limit: Option<Duration>) {
        let woken = self.woken.lock();
        let mut woken = match limit {
            None => self.changed.wait_while(woken, |woken| !*woken),
            Some(limit) => self
                .changed
                .wait_timeout_while(woken, limit, |woken| !*woken),
        };
        *woken = false;
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
