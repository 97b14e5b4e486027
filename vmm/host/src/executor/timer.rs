//! The preemption timer of one thread: it sends the thread the kick signal when the policy's decision about
//! its CPU ends.
//!
//! It is lazy: an armed time that comes too early is left standing, because setting a timer takes a system
//! call, and a decision often lasts a few microseconds only. A needless signal per slice is cheaper.

use std::io;

use baton_os::signals::RtSignal;
use baton_os::thread_timer::{ThreadTimer, TimerClock};

/// A timer for the thread that made it.
#[derive(Debug)]
pub(crate) struct PreemptionTimer {
    timer: ThreadTimer,
    /// When it fires, `CLOCK_MONOTONIC` ns.
    armed: Option<u64>,
}

impl PreemptionTimer {
    /// A timer that is not armed, for the calling thread.
    ///
    /// # Errors
    /// If the host has no timer left for this process.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        let signo = RtSignal::ExecutorKick.number();
        Ok(Self {
            timer: ThreadTimer::new(TimerClock::Monotonic, signo)?,
            armed: None,
        })
    }

    /// Makes sure that the signal comes no later than `until` and, unless an earlier time is armed, no
    /// earlier. `None`: it need not come.
    pub(crate) fn arm(&mut self, until: Option<u64>, now: u64) {
        let Some(until) = until else { return };
        if self
            .armed
            .is_some_and(|armed| armed > now && armed <= until)
        {
            return;
        }
        // The kernel refuses no time of a timer that exists.
        let _ = self.timer.set_at(until);
        self.armed = Some(until);
    }
}
