//! That the process at the other end is gone, for all threads that wait for it.

use crate::sync::FutexWord;
use crate::sync::atomic::{AtomicBool, Ordering};

use crate::number::GONE;

/// Whether the peer is gone. Its control socket shows that first.
#[derive(Debug, Default)]
pub(crate) struct Hangup(AtomicBool);

impl Hangup {
    pub(crate) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Records that the peer is gone, and wakes those who wait on `words` for it.
    ///
    /// A thread that has read the flag and is about to wait finds its word changed. A guest's process that
    /// lives on can change it back, so the pool also reads the flag again after a while.
    pub(crate) fn set<'a>(&self, words: impl Iterator<Item = &'a FutexWord>) {
        self.0.store(true, Ordering::Release);
        for word in words {
            word.set(GONE);
            word.wake_all();
        }
    }
}
