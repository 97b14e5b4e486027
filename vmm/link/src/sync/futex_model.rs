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

/// The same as in `futex.rs`.
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    pub(crate) fn rung(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn ring(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The same as in `futex.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitedFor {
    #[allow(dead_code, reason = "no word is waited for")]
    Word(usize),
    Other,
}

/// A wait that ends at once for no reason: what is modelled is what happens before and after.
pub(crate) fn wait_any<'a>(
    _: (&Bell, u32),
    _: impl Iterator<Item = (&'a FutexWord, u32)>,
    _: Option<Duration>,
) -> Option<WaitedFor> {
    Some(WaitedFor::Other)
}
