//! A futex as loom can explore it: the comparison and the sleep are one step for those who wake. No time
//! passes, so a wake-up that is lost is a deadlock, which loom reports.

use std::time::Duration;

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// The same as the word in `futex.rs`.
#[derive(Debug, Default)]
pub(crate) struct FutexWord {
    value: AtomicU32,
    /// The kernel's lock on the queue of those who wait.
    queue: Mutex<()>,
    woken: Condvar,
}

impl FutexWord {
    pub(crate) fn load(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, value: u32) {
        self.value.store(value, Ordering::Release);
    }

    pub(crate) fn set(&self, bits: u32) {
        self.value.fetch_or(bits, Ordering::AcqRel);
    }

    pub(crate) fn wait(&self, expected: u32, _: Option<Duration>) -> bool {
        let queue = self.queue.lock().unwrap();
        if self.value.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
        true
    }

    pub(crate) fn wake(&self) {
        drop(self.queue.lock().unwrap());
        self.woken.notify_one();
    }

    pub(crate) fn wake_all(&self) {
        drop(self.queue.lock().unwrap());
        self.woken.notify_all();
    }
}
