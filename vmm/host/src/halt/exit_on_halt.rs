//! Exit on halt: the context switch by which KVM puts a halted vCPU to sleep ends `KVM_RUN`.
//!
//! A perf software event counts the thread's context switches and signals the thread at each. The
//! signal makes KVM give up the sleep: `KVM_RUN` returns `EINTR` with the vCPU still halted. If it
//! was not a halt, the host preempted the thread, and `KVM_RUN` returned for nothing: one exit per
//! preemption.
//!
//! # One signal at a time
//! An event that stayed on would also signal when the thread itself goes to sleep, on a futex say.
//! The signal would end that sleep, the thread would try again, and so on: an idle executor would
//! spin, and one with a real-time priority would keep the holder of the lock that it waits for from
//! running. So the event is armed for one switch and then silent until it is made ready again:
//!
//! 1. The thread makes the signal's handler able to stop the vCPU: the handler sets the vCPU's
//!    `immediate_exit`.
//! 2. [`HaltSignal::ready`].
//! 3. `KVM_RUN`. A halt here ends it. So does a preemption here.
//! 4. A switch between 2 and 3 (a preemption, a page fault) uses the shot up, but the handler of
//!    step 1 then ends step 3 before it begins, and the thread starts over. No halt is missed.
//! 5. Step 2 can be left out while no signal has come since the last time.
//!
//! Measured (Linux 6.18, KVM-PVM, AMD): an armed event adds nothing measurable to a `KVM_RUN` that
//! does not sleep; switching it on and off around each costs 2 us.

use std::io;
use std::marker::PhantomData;
use std::mem;

use perf_event_open_sys::bindings::{DISABLE, ENABLE, PERF_COUNT_SW_CONTEXT_SWITCHES, REFRESH};
use thiserror::Error;

use super::perf_signal::{Counted, PerfSignal};

/// Halts that cannot be noticed.
#[derive(Debug, Error)]
pub enum HaltSignalError {
    /// Not permitted.
    #[error(
        "perf_event_open is not permitted, so the halt of a vCPU is noticed late: give the baton \
         binary CAP_PERFMON (sudo setcap cap_perfmon+ep), or run sudo sysctl \
         kernel.perf_event_paranoid=1{}; in a container, its seccomp profile must allow \
         perf_event_open too",
        .paranoid.map(|level| format!(" (it is {level})")).unwrap_or_default()
    )]
    NotPermitted {
        /// `kernel.perf_event_paranoid`, if readable.
        paranoid: Option<i32>,
    },
    /// The kernel has no such event.
    #[error(
        "this host's kernel has no perf events, so the halt of a vCPU is noticed late: use a \
         kernel with CONFIG_PERF_EVENTS"
    )]
    Unsupported,
    /// A signal without a handler would end the program.
    #[error("signal {0} cannot announce halts: it has no handler, or is no real-time signal")]
    Signal(libc::c_int),
    /// Anything else.
    #[error("cannot set up the signal that announces halts ({what}): {source}")]
    Host {
        /// What failed.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// What the event will do at the next context switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shot {
    /// Signal, once.
    Armed,
    /// Nothing: it has signalled.
    Spent,
    /// Nothing: it was switched off before it could signal.
    Held,
}

/// Signals the thread that made it when that thread goes off its CPU, as it does when a vCPU that
/// it runs halts.
///
/// It stays on its thread: the event is that thread's.
#[derive(Debug)]
pub struct HaltSignal {
    event: PerfSignal,
    shot: Shot,
    /// Value of the event's counter when it was last looked at: its signals so far.
    signals: u64,
    /// Not `Send`, not `Sync`.
    thread: PhantomData<*const ()>,
}

impl HaltSignal {
    /// An event that sends signal `signo` to the calling thread, armed for its next context switch.
    ///
    /// `signo` is a real-time signal with a handler that sets `immediate_exit` of the vCPU that the
    /// thread is about to run (module documentation, steps 1 and 4), and is not blocked.
    ///
    /// # Errors
    /// What is missing and how to get it, as [`HaltSignalError`].
    pub fn arm(signo: libc::c_int) -> Result<Self, HaltSignalError> {
        let event = PerfSignal::open(
            Counted::Software(PERF_COUNT_SW_CONTEXT_SWITCHES),
            1,
            signo,
            None,
        )?;
        let mut this = Self {
            event,
            shot: Shot::Spent,
            signals: 0,
            thread: PhantomData,
        };
        this.ready().map_err(|source| HaltSignalError::Host {
            what: "PERF_EVENT_IOC_REFRESH",
            source,
        })?;
        Ok(this)
    }

    /// Arms the event for one context switch, if it is not armed.
    ///
    /// Has to come before a `KVM_RUN` only if a signal came to this thread, or
    /// [`HaltSignal::quiet`] was called, since the last time. Costs about 0.5 us if the event is
    /// still armed and 1.5 us if not.
    ///
    /// # Errors
    /// If the kernel does not do it; it always does for an event of a living thread.
    pub fn ready(&mut self) -> io::Result<()> {
        self.look()?;
        match self.shot {
            Shot::Armed => return Ok(()),
            // The kernel switched the event off when the shot was fired; this gives it another.
            Shot::Spent => self.event.control(REFRESH, 1)?,
            // REFRESH here would add a second shot to the one that is left.
            Shot::Held => self.event.control(ENABLE, 0)?,
        }
        self.shot = Shot::Armed;
        Ok(())
    }

    /// No signal from here on until [`HaltSignal::ready`]. For a thread that is going to sleep by
    /// itself, or to let a halted vCPU sleep in `KVM_RUN` because there is nothing else to run; not
    /// needed for correctness, since an armed event disturbs such a sleep only once.
    ///
    /// # Errors
    /// As [`HaltSignal::ready`].
    pub fn quiet(&mut self) -> io::Result<()> {
        if self.shot == Shot::Armed {
            self.event.control(DISABLE, 0)?;
            self.look()?;
            if self.shot == Shot::Armed {
                self.shot = Shot::Held;
            }
        }
        Ok(())
    }

    /// How often it has signalled, as far as known at the last [`HaltSignal::ready`] or
    /// [`HaltSignal::quiet`]: halts, preemptions while armed, and the thread's own sleeps.
    #[must_use]
    pub fn signals(&self) -> u64 {
        self.signals
    }

    /// Finds out whether the shot was fired.
    fn look(&mut self) -> io::Result<()> {
        let count = self.event.count()?;
        if count != self.signals {
            self.signals = count;
            self.shot = Shot::Spent;
        }
        Ok(())
    }
}

/// How often the host took the calling thread off its CPU against its will: other threads, not
/// halts. Needs no permission; costs about 0.4 us.
#[must_use]
pub fn host_preemptions() -> u64 {
    // SAFETY: plain integers; getrusage fills them and cannot fail for the calling thread.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    usage.ru_nivcsw as u64
}

#[cfg(test)]
mod tests;
