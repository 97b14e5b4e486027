//! What ends a run: its guests, a signal, or its duration.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use baton_os::signals::StopSignals;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Counts down the guests for which the run waits, and makes a file readable at the last one.
#[derive(Clone, Debug)]
pub(crate) struct RunEnd {
    left: Arc<AtomicUsize>,
    event: Arc<OwnedFd>,
}

impl RunEnd {
    /// Waits for `guests` guests.
    pub(crate) fn new(guests: usize) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            left: Arc::new(AtomicUsize::new(guests)),
            event: Arc::new(event),
        })
    }

    /// Counts a guest that has ended.
    pub(crate) fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Only a counter at its maximum refuses a write, and one write cannot take it there.
            let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until the guests have ended, a signal has come, or `deadline` has passed.
    pub(crate) fn wait(
        &self,
        signals: Option<&StopSignals>,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        loop {
            let timeout = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|t| t.is_zero()) || self.left.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            // SAFETY: `signals` keeps its file open at least as long as this call.
            let signal_file = signals.map(|s| unsafe { BorrowedFd::borrow_raw(s.as_raw_fd()) });
            let files = [Some(self.event.as_fd()), signal_file].into_iter();
            let file = |file| PollFd::from_borrowed_fd(file, PollFlags::IN);
            let mut files: Vec<PollFd<'_>> = files.flatten().map(file).collect();
            // A duration that has no timespec is some hundred years away.
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut files, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if signals.is_some_and(StopSignals::take) {
                return Ok(());
            }
        }
    }
}
