//! A word on which a thread of another process can wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex::{self, Flags};
use rustix::time::Timespec;

/// A word in shared memory. Stores release and loads acquire what was written before.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct FutexWord(AtomicU32);

impl FutexWord {
    pub(crate) fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// Sets bits that are not set yet.
    pub(crate) fn set(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// Waits until another thread wakes this one, at most for `timeout` if there is one. Returns at once if
    /// the word is not `expected`. May also return for another reason, such as a signal. False: the time is
    /// over.
    pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) -> bool {
        // A time that the kernel cannot express is longer than any host runs.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // No private futex: the other thread belongs to another process.
        let waited = futex::wait(&self.0, Flags::empty(), expected, timeout.as_ref());
        waited != Err(rustix::io::Errno::TIMEDOUT)
    }

    /// Wakes the thread that waits.
    pub(crate) fn wake(&self) {
        // It fails only for an address that is no futex. One thread waits at most, unless the other
        // process does what it must not do.
        let _ = futex::wake(&self.0, Flags::empty(), 1);
    }

    /// Wakes all threads that wait.
    pub(crate) fn wake_all(&self) {
        let _ = futex::wake(&self.0, Flags::empty(), i32::MAX as u32);
    }
}
