//! What ends a run: its guests, a signal, or its duration.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use baton_os::event::{Event, wait_readable};
use baton_os::signals::StopSignals;

/// A signal has requested the end of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// Counts down the guests for which the run waits, and makes a file readable at the last one.
#[derive(Clone, Debug)]
pub(crate) struct RunEnd {
    left: Arc<AtomicUsize>,
    event: Arc<Event>,
}

impl RunEnd {
    /// Waits for `guests` guests.
    pub(crate) fn new(guests: usize) -> io::Result<Self> {
        Ok(Self {
            left: Arc::new(AtomicUsize::new(guests)),
            event: Arc::new(Event::new()?),
        })
    }

    /// Ends the wait for a moment, because a guest has ended that may start again.
    pub(crate) fn wake(&self) {
        self.event.set();
    }

    /// Counts a guest that has ended for good.
    pub(crate) fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.event.set();
        }
    }

    /// Waits until the guests have ended, a signal has come, or `deadline` has passed. Calls `tend` at first, when
    /// [`RunEnd::wake`] is called, and at the time that it returns.
    pub(crate) fn wait(
        &self,
        signals: Option<&StopSignals>,
        deadline: Option<Instant>,
        mut tend: impl FnMut() -> Result<Option<Instant>, Stopped>,
    ) -> io::Result<()> {
        loop {
            let Ok(next) = tend() else { return Ok(()) };
            let now = Instant::now();
            if deadline.is_some_and(|d| d <= now) || self.left.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            let wake_at = [deadline, next].into_iter().flatten().min();
            let timeout = wake_at.map(|at| at.saturating_duration_since(now));
            let files = [Some(self.event.as_fd()), signals.map(AsFd::as_fd)];
            let files: Vec<_> = files.into_iter().flatten().collect();
            wait_readable(&files, timeout)?;
            self.event.take();
            if signals.is_some_and(StopSignals::take) {
                return Ok(());
            }
        }
    }
}
