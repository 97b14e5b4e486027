//! Exit on halt: the context switch by which KVM puts a halted vCPU to sleep ends `KVM_RUN`.
//!
//! A perf software event counts the thread's context switches and signals the thread at each. The
//! signal makes KVM give up the sleep: `KVM_RUN` returns `EINTR` with the vCPU still halted. If the switch
//! was not a halt, the host preempted the thread, and `KVM_RUN` returned for nothing: one exit per
//! preemption.
//!
//! # One signal at a time
//! An event that stayed on would also signal when the thread itself goes to sleep, on a futex say.
//! The signal would end that sleep, the thread would try again, and so on: an idle executor would
//! spin, and an executor with a real-time priority would keep the holder of the lock that it waits for from
//! running. So the event signals one switch and then stays silent until it is armed again:
//!
//! 1. The thread makes the signal's handler able to stop the vCPU: the handler sets the vCPU's
//!    `immediate_exit`.
//! 2. [`HaltSignal::rearm`].
//! 3. `KVM_RUN`. A halt here ends it. So does a preemption here.
//! 4. A switch between 2 and 3 (a preemption, a page fault) uses the one signal up, but the handler of
//!    step 1 then ends step 3 before it begins, and the thread starts over. No halt is missed.
//! 5. Step 2 can be left out while no signal has come since the last time.
//!
//! Measured (Linux 6.18, KVM-PVM, AMD): an armed event adds nothing measurable to a `KVM_RUN` that
//! does not sleep; switching it on and off around each costs 2 us.

use std::io;
use std::marker::PhantomData;

use perf_event_open_sys::bindings::{PERF_COUNT_SW_CONTEXT_SWITCHES, REFRESH};

use super::error::HaltSignalError;
use super::perf_signal::{Counted, PerfSignal};

/// Signals the thread that made it when that thread goes off its CPU, as it does when a vCPU that
/// it runs halts.
///
/// It stays on its thread: the event is that thread's.
#[derive(Debug)]
pub struct HaltSignal {
    event: PerfSignal,
    /// The event has not signalled since it was armed last, as far as is known.
    armed: bool,
    /// Value of the event's counter when it was last read: its signals so far.
    signals: u64,
    /// Not `Send`, not `Sync`.
    thread: PhantomData<*const ()>,
}

impl HaltSignal {
    /// Creates an event that sends signal `signo` to the calling thread, armed for its next context switch.
    ///
    /// `signo` is a real-time signal with a handler that sets `immediate_exit` of the vCPU that the
    /// thread is about to run (module documentation, steps 1 and 4), and is not blocked.
    ///
    /// # Errors
    /// What is missing and how to get it, as [`HaltSignalError`].
    pub fn arm(signo: libc::c_int) -> Result<Self, HaltSignalError> {
        let counted = Counted::Software(PERF_COUNT_SW_CONTEXT_SWITCHES);
        let mut this = Self {
            event: PerfSignal::open(counted, 1, signo, None)?,
            armed: false,
            signals: 0,
            thread: PhantomData,
        };
        this.rearm().map_err(|source| HaltSignalError::Host {
            what: "PERF_EVENT_IOC_REFRESH",
            source,
        })?;
        Ok(this)
    }

    /// Arms the event for one context switch, if it is not armed.
    ///
    /// Has to come before a `KVM_RUN` only if a signal came to this thread since the last time. Costs about
    /// 0.5 us if the event is still armed and 1.5 us if not.
    ///
    /// # Errors
    /// If the kernel refuses, as it never does for an event of a living thread.
    pub fn rearm(&mut self) -> io::Result<()> {
        let signals = self.event.count()?;
        if signals != self.signals {
            self.signals = signals;
            // The kernel switched the event off when it signalled.
            self.armed = false;
        }
        // A second REFRESH would add a second signal to the one that is left.
        if !self.armed {
            self.event.control(REFRESH, 1)?;
            self.armed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
