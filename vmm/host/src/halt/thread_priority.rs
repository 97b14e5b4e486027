//! The priorities of threads for the host's scheduler where executors have one.
//!
//! | thread | priority |
//! |---|---|
//! | an executor; a vCPU's own thread while the vCPU runs | that of `--executor-priority` |
//! | an executor of a pool whose vCPUs have threads in other processes with that priority | one more |
//! | a thread on which a halted vCPU sleeps, a device's thread | one more |
//! | any other thread that takes the pool's lock, while it has the lock | one more |
//!
//! The higher ones have little to do, which is bounded and charged, and must not wait for a vCPU that never
//! stops: the policy learns from them that a vCPU woke, and executors wait for the lock. Without a priority for
//! executors, they have a short slice instead (`short_slice.rs`).

use std::io;

use baton_config::ExecutorPriority;
use baton_os::sys::{self, FormerScheduling};

use super::short_slice::{ShortSlice, set_short_slice};

/// The priorities of the threads of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadPriority(pub ExecutorPriority);

impl ThreadPriority {
    /// The calling thread runs vCPUs from now on.
    ///
    /// # Errors
    /// The host's reason why the thread may not have the priority.
    pub(crate) fn run_vcpus(self) -> io::Result<()> {
        match self.0 {
            ExecutorPriority::Off => Ok(()),
            ExecutorPriority::Fifo(priority) => sys::set_fifo_policy(priority),
        }
    }

    /// The calling thread commands threads of other processes that run vCPUs, and preempts them when it wakes, from
    /// now on.
    ///
    /// # Errors
    /// As [`ThreadPriority::run_vcpus`].
    pub(crate) fn command_vcpus(self) -> io::Result<()> {
        self.0.above().map_or(Ok(()), sys::set_fifo_policy)
    }

    /// The calling thread preempts those that run vCPUs when it wakes, from now on.
    pub(crate) fn preempt(self) {
        match self.0.above() {
            None => set_short_slice(),
            // The host has permitted it to the executors; a lower limit makes the thread slower.
            Some(above) => drop(sys::set_fifo_policy(above)),
        }
    }

    /// [`Self::preempt`] until the guard is dropped, on a thread that otherwise runs vCPUs.
    pub(crate) fn preempt_for_now(self) -> PreemptsForNow {
        match self.0.above() {
            None => PreemptsForNow::Slice {
                _short: ShortSlice::enter(),
            },
            Some(above) => {
                let _ = sys::set_fifo_policy(above);
                PreemptsForNow::Priority(self)
            }
        }
    }

    /// While the guard lives, nothing that runs vCPUs preempts the calling thread, which has no priority
    /// otherwise.
    pub(crate) fn not_preempted(self) -> NotPreempted {
        let Some(above) = self.0.above() else {
            return NotPreempted(None);
        };
        let former = FormerScheduling::of_this_thread().ok();
        NotPreempted(former.filter(|_| sys::set_fifo_policy(above).is_ok()))
    }
}

/// See [`ThreadPriority::preempt_for_now`].
pub(crate) enum PreemptsForNow {
    /// The slice is restored when this is dropped.
    Slice { _short: ShortSlice },
    /// The thread has the priority of executors otherwise.
    Priority(ThreadPriority),
}

impl Drop for PreemptsForNow {
    fn drop(&mut self) {
        if let Self::Priority(priority) = self {
            let _ = priority.run_vcpus();
        }
    }
}

/// See [`ThreadPriority::not_preempted`].
pub(crate) struct NotPreempted(Option<FormerScheduling>);

impl Drop for NotPreempted {
    fn drop(&mut self) {
        if let Some(former) = &self.0 {
            // Nobody needs a privilege for a lower priority.
            let _ = former.restore();
        }
    }
}
