//! Where kicks for one executor arrive, and how they reach the thread that is in the guest for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use baton_os::sys;

use super::kick::{Notify, Place};
use super::signal;

/// One executor as its kickers see it.
#[derive(Debug)]
pub(crate) struct Station {
    place: Place,
    /// The executor's thread, to be unparked.
    thread: OnceLock<Thread>,
    /// Its kernel id; 0 before it has come.
    executor_tid: AtomicI32,
    /// The thread that runs, or ran last, a vCPU for it.
    guest_tid: AtomicI32,
}

impl Station {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::new(),
            thread: OnceLock::new(),
            executor_tid: AtomicI32::new(0),
            guest_tid: AtomicI32::new(0),
        }
    }

    /// The calling thread is the executor.
    pub(crate) fn occupy(&self) {
        // A second executor on the same station would be a bug of this program; the first stays.
        let _ = self.thread.set(thread::current());
        self.executor_tid.store(sys::thread_id(), Ordering::Release);
    }

    /// Kernel id of the executor's thread, once that has come.
    pub(crate) fn executor(&self) -> Option<libc::pid_t> {
        let tid = self.executor_tid.load(Ordering::Acquire);
        (tid != 0).then_some(tid)
    }

    /// Makes the executor look at the policy again.
    pub(crate) fn kick(&self) {
        match self.place.kick() {
            Notify::Nothing => {}
            Notify::Signal => signal::send(self.guest_tid.load(Ordering::Acquire)),
            Notify::Unpark => {
                if let Some(thread) = self.thread.get() {
                    thread.unpark();
                }
            }
        }
    }

    /// The calling thread is about to enter the guest for this executor. False: kicked, do not.
    pub(crate) fn enter_guest(&self) -> bool {
        // Before the place changes: who reads the place `guest` finds this thread.
        self.guest_tid.store(sys::thread_id(), Ordering::Release);
        self.place.enter_guest()
    }

    /// Whether it was kicked while in the guest. After clearing `immediate_exit`.
    pub(crate) fn is_kicked(&self) -> bool {
        self.place.is_kicked()
    }

    /// The calling thread is back from the guest.
    pub(crate) fn leave_guest(&self) {
        self.place.come_back();
    }

    /// Sleeps until a kick, `timeout` or nothing at all.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) {
        if self.place.fall_asleep() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
            self.place.come_back();
        }
    }

    /// Whether it was kicked since the last call.
    pub(crate) fn take(&self) -> bool {
        self.place.take()
    }
}
