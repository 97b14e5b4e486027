//! A word on which a thread of another process can wait, and waiting for several of them.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

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

/// A word of this process by which its threads wake the one that waits. It counts how often it was rung.
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    /// How often it was rung.
    pub(crate) fn rung(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Wakes the thread that waits.
    pub(crate) fn ring(&self) {
        self.0.fetch_add(1, Ordering::Release);
        // As above.
        let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
    }
}

/// What has ended a wait for several words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitedFor {
    /// The word with this index has another value, or somebody has woken those who wait for it.
    Word(usize),
    /// The bell, the time, or no reason.
    Other,
}

/// Waits until one of `words` has not the value beside it, until `bell` was rung more often than the number beside
/// it, or at most for `timeout`. May also return for no reason. `None`: the kernel cannot do that.
pub(crate) fn wait_any<'a>(
    bell: (&Bell, u32),
    words: impl Iterator<Item = (&'a FutexWord, u32)>,
    timeout: Option<Duration>,
) -> Option<WaitedFor> {
    let mut waits = vec![entry(&bell.0.0, bell.1, WaitFlags::PRIVATE)];
    waits.extend(words.map(|(word, value)| entry(&word.0, value, WaitFlags::empty())));
    // This call takes the time at which the wait ends. One that the kernel cannot express is never.
    let until = timeout.and_then(|timeout| {
        let now = clock_gettime(ClockId::Monotonic);
        now.checked_add(Timespec::try_from(timeout).ok()?)
    });
    let waited = futex::waitv(
        &waits,
        WaitvFlags::empty(),
        until.as_ref(),
        ClockId::Monotonic,
    );
    match waited {
        Ok(index) if index > 0 => Some(WaitedFor::Word(index - 1)),
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => None,
        _ => Some(WaitedFor::Other),
    }
}

fn entry(word: &AtomicU32, value: u32, more: WaitFlags) -> Wait {
    let mut wait = Wait::new();
    wait.val = u64::from(value);
    wait.uaddr = WaitPtr::new(ptr::from_ref(word).cast_mut().cast());
    wait.flags = WaitFlags::SIZE_U32 | more;
    wait
}
