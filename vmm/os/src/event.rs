//! An event as a file that others poll, and waiting for several of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A file that is readable once the event has been set, and until it has been taken.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// An event that has not been set.
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Makes the file readable.
    pub fn set(&self) {
        // The kernel refuses only the 2^64th write without a read.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Whether the event has been set since the last call.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Event {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of `files` is readable, `timeout` has passed, or a signal has come to this thread.
///
/// # Errors
/// If the kernel has no memory for it.
pub fn wait_readable(files: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut files: Vec<_> = files
        .iter()
        .map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN))
        .collect();
    // A time that the kernel has no number for is no limit.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut files, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_once_however_often_it_was_set() {
        let event = Event::new().expect("an event");
        assert!(!event.take());
        event.set();
        event.set();
        assert!(event.take());
        assert!(!event.take());
    }

    #[test]
    fn the_wait_ends_at_the_first_event_or_the_timeout() {
        let (first, second) = (Event::new().expect("one"), Event::new().expect("two"));
        let files = [first.as_fd(), second.as_fd()];
        wait_readable(&files, Some(Duration::from_nanos(1))).expect("a timeout");
        second.set();
        wait_readable(&files, None).expect("the second");
        assert!(!first.take() && second.take());
    }
}
