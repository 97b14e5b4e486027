//! A POSIX timer that sends its signal to one thread.

use std::{io, mem, ptr};

use crate::sys;

/// The clock of a [`ThreadTimer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerClock {
    /// `CLOCK_MONOTONIC`, exact.
    Monotonic,
    /// The CPU time of the thread that created the timer, exact to the kernel's tick.
    ThreadCpu,
}

/// A timer that signals the thread that created it. It is not armed until a time is set.
#[derive(Debug)]
pub struct ThreadTimer(libc::timer_t);

impl ThreadTimer {
    /// Creates a timer that sends `signo` to the calling thread.
    ///
    /// # Errors
    /// If this process has no timer left (`ulimit -i`).
    pub fn new(clock: TimerClock, signo: libc::c_int) -> io::Result<Self> {
        let clock = match clock {
            TimerClock::Monotonic => libc::CLOCK_MONOTONIC,
            TimerClock::ThreadCpu => libc::CLOCK_THREAD_CPUTIME_ID,
        };
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: an all-zero sigevent is valid; both pointers are to values that outlive the call.
        let result = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signo;
            event.sigev_notify_thread_id = sys::thread_id();
            libc::timer_create(clock, &raw mut event, &raw mut timer)
        };
        match result {
            0 => Ok(Self(timer)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one signal when the clock reaches `at_ns`, at once if it has, in place of what was set
    /// before.
    ///
    /// # Errors
    /// If the kernel refuses the time.
    pub fn set_at(&self, at_ns: u64) -> io::Result<()> {
        // Zero would disarm the timer.
        self.set(libc::TIMER_ABSTIME, at_ns.max(1), 0)
    }

    /// Sends a signal for every `period_ns` that pass on the clock from now on, in place of what was set
    /// before. A period of 0 disarms the timer.
    ///
    /// # Errors
    /// If the kernel refuses the period.
    pub fn set_period(&self, period_ns: u64) -> io::Result<()> {
        self.set(0, period_ns, period_ns)
    }

    fn set(&self, flags: libc::c_int, first_ns: u64, period_ns: u64) -> io::Result<()> {
        let setting = libc::itimerspec {
            it_interval: timespec(period_ns),
            it_value: timespec(first_ns),
        };
        // SAFETY: the timer exists as long as `self`; the kernel reads the setting.
        match unsafe { libc::timer_settime(self.0, flags, &raw const setting, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: `new` created the timer, and nothing else deletes it.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

    use super::*;

    thread_local! {
        static SIGNALS: Cell<u64> = const { Cell::new(0) };
    }

    extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        SIGNALS.set(SIGNALS.get() + 1);
    }

    /// A timer of a thread of its own, whose signals `test` waits for.
    fn with_timer(clock: TimerClock, test: impl FnOnce(&ThreadTimer) + Send + 'static) {
        let signo = SIGRTMIN() + 7;
        register_signal_handler(signo, on_signal).expect("a handler");
        std::thread::spawn(move || test(&ThreadTimer::new(clock, signo).expect("a timer")))
            .join()
            .expect("no panic");
    }

    fn spin_until_signals(count: u64) {
        while SIGNALS.get() < count {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_time_is_signalled_once_also_if_it_has_passed() {
        with_timer(TimerClock::Monotonic, |timer| {
            timer.set_at(0).expect("a time that has passed");
            spin_until_signals(1);
            timer
                .set_at(sys::monotonic_ns() + 1_000_000)
                .expect("a time to come");
            spin_until_signals(2);
            timer.set_at(u64::MAX / 2).expect("a time that never comes");
            assert_eq!(SIGNALS.get(), 2);
        });
    }

    #[test]
    fn a_period_of_cpu_time_is_signalled_until_it_is_set_to_zero() {
        with_timer(TimerClock::ThreadCpu, |timer| {
            timer.set_period(1_000_000).expect("a period");
            spin_until_signals(3);
            timer.set_period(0).expect("disarmed");
            let before = SIGNALS.get();
            let until = sys::thread_cpu_ns() + 20_000_000;
            while sys::thread_cpu_ns() < until {
                std::hint::spin_loop();
            }
            assert_eq!(SIGNALS.get(), before);
        });
    }
}
