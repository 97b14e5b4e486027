//! The preemption timer of one thread: it sends the thread the kick signal when the policy's decision about
//! its CPU ends.
//!
//! It is lazy: an armed time that comes too early is left standing, because setting a timer takes a system
//! call, and a decision often lasts a few microseconds only. A needless signal per slice is cheaper.

use std::{io, mem, ptr};

use baton_os::{rt_signals, sys};

/// A timer for the thread that made it.
#[derive(Debug)]
pub(crate) struct PreemptionTimer {
    timer: libc::timer_t,
    /// When it fires, `CLOCK_MONOTONIC` ns.
    armed: Option<u64>,
}

// SAFETY: a timer is named by a number of the process, and any thread may set it.
unsafe impl Send for PreemptionTimer {}

impl PreemptionTimer {
    /// A timer that is not armed, for the calling thread.
    ///
    /// # Errors
    /// If the host has no timer left for this process.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        // SAFETY: all zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = rt_signals::executor_kick();
        event.sigev_notify_thread_id = sys::thread_id();
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both point to values that live across the call.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { timer, armed: None })
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
        let time = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            // Zero would disarm it.
            it_value: libc::timespec {
                tv_sec: (until / 1_000_000_000) as libc::time_t,
                tv_nsec: (until % 1_000_000_000).max(1) as libc::c_long,
            },
        };
        // SAFETY: the timer is ours, and the time is valid, so this cannot fail.
        unsafe {
            libc::timer_settime(
                self.timer,
                libc::TIMER_ABSTIME,
                &raw const time,
                ptr::null_mut(),
            );
        }
        self.armed = Some(until);
    }
}

impl Drop for PreemptionTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, and not used afterwards.
        unsafe { libc::timer_delete(self.timer) };
    }
}
