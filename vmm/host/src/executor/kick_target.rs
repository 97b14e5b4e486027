//! One executor as its kickers see it: what state it is in, and which threads to reach.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use baton_os::sys;

use super::kick::{ExecutorState, Notify};
use super::kick_handler;

/// Where kicks for one executor go.
#[derive(Debug)]
pub(crate) struct KickTarget {
    state: ExecutorState,
    /// The executor's thread, to be unparked.
    thread: OnceLock<Thread>,
    /// Its kernel id; 0 before it has started.
    executor_tid: AtomicI32,
    /// Kernel id of the thread that runs, or ran last, a vCPU for it.
    guest_tid: AtomicI32,
}

impl KickTarget {
    pub(crate) fn new() -> Self {
        Self {
            state: ExecutorState::new(),
            thread: OnceLock::new(),
            executor_tid: AtomicI32::new(0),
            guest_tid: AtomicI32::new(0),
        }
    }

    /// The calling thread is the executor.
    pub(crate) fn set_executor(&self) {
        // A second executor of one CPU would be a bug of this program; the first stays.
        let _ = self.thread.set(thread::current());
        self.executor_tid.store(sys::thread_id(), Ordering::Release);
    }

    /// Kernel id of the executor's thread, once that has started.
    pub(crate) fn executor(&self) -> Option<libc::pid_t> {
        let tid = self.executor_tid.load(Ordering::Acquire);
        (tid != 0).then_some(tid)
    }

    /// Makes the executor have the policy decide again.
    pub(crate) fn kick(&self) {
        match self.state.kick() {
            Notify::Nothing => {}
            Notify::Signal => kick_handler::send(self.guest_tid.load(Ordering::Acquire)),
            Notify::Unpark => {
                if let Some(thread) = self.thread.get() {
                    thread.unpark();
                }
            }
        }
    }

    /// The calling thread is about to enter the guest for this executor. False: a kick is pending, do not
    /// enter.
    pub(crate) fn enter_guest(&self) -> bool {
        // Before the state changes: a kicker that finds the executor in the guest signals this thread.
        self.guest_tid.store(sys::thread_id(), Ordering::Release);
        self.state.enter_guest()
    }

    /// Whether a kick came while in the guest. To be called after `immediate_exit` was cleared.
    pub(crate) fn is_kicked(&self) -> bool {
        self.state.is_kicked()
    }

    /// The calling thread is back from the guest.
    pub(crate) fn leave_guest(&self) {
        self.state.return_to_host();
    }

    /// Sleeps until a kick or for `timeout`; may return early.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) {
        if self.state.fall_asleep() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
            self.state.return_to_host();
        }
    }

    /// Whether a kick has come since the last call.
    pub(crate) fn take_kick(&self) -> bool {
        self.state.take_kick()
    }
}
