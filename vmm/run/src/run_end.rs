//! What ends a run: its guests, a signal, or its duration.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use baton_os::event::{Event, wait_readable};
use baton_os::signals::StopSignals;

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

    /// Counts a guest that has ended.
    pub(crate) fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.event.set();
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
            let files = [Some(self.event.as_fd()), signals.map(AsFd::as_fd)];
            let files: Vec<_> = files.into_iter().flatten().collect();
            wait_readable(&files, timeout)?;
            if signals.is_some_and(StopSignals::take) {
                return Ok(());
            }
        }
    }
}
