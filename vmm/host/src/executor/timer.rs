//! The preemption timer of one thread: sends it the kick signal when the policy wants its CPU back.
//!
//! Lazy: an armed time that comes too early is left standing, since setting a timer costs a system
//! call and a decision often lasts a few microseconds only. A needless signal per slice is cheaper.

use std::io;

use baton_os::thread_timer::{ThreadTimer, TimerClock};

use super::signal;

/// A timer for the thread that made it.
#[derive(Debug)]
pub(crate) struct PreemptionTimer {
    timer: ThreadTimer,
    /// When it fires, `CLOCK_MONOTONIC` ns.
    armed: Option<u64>,
}

impl PreemptionTimer {
    /// # Errors
    /// If the host has no timer left for this process.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        Ok(Self {
            timer: ThreadTimer::new(TimerClock::Monotonic, signal::kick_signal())?,
            armed: None,
        })
    }

    /// Makes sure that the signal comes no later than `until` and, unless an earlier time stands,
    /// no earlier. `None`: it need not come.
    pub(crate) fn arm(&mut self, until: Option<u64>, now: u64) {
        let Some(until) = until else { return };
        if self
            .armed
            .is_some_and(|armed| armed > now && armed <= until)
        {
            return;
        }
        // The kernel takes every time that a timer of its own can have.
        let _ = self.timer.set_at(until);
        self.armed = Some(until);
    }
}
