//! One executor as its kickers see it: what state it is in, and which threads to reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use baton_link::answer_watch::{AnswerWatch, WaitBell, WaitEnd};
use baton_link::join::VcpuKick;
use baton_os::sys;

use super::kick::{ExecutorState, Notify};
use super::kick_handler;
use super::kicks::Kicks;
use crate::sync::Mutex;

/// Where kicks for one executor go.
#[derive(Debug)]
pub(crate) struct KickTarget {
    state: ExecutorState,
    /// The executor's thread, to be unparked.
    thread: Mutex<Option<Thread>>,
    /// Its kernel id; 0 before it has started.
    executor_tid: AtomicI32,
    /// Kernel id of the thread that runs, or ran last, a vCPU for it; 0 for a thread of another process.
    guest_tid: AtomicI32,
    /// The way to that thread of another process, while the executor waits for it.
    foreign: Mutex<Option<Arc<VcpuKick>>>,
    /// Whether the executor is to end, because the pool gives its host CPU up.
    ends: AtomicBool,
    /// Whether the executor sleeps, or slept last, by waiting for vCPUs of other processes.
    is_watching: AtomicBool,
    /// Ends that wait.
    bell: WaitBell,
}

impl KickTarget {
    pub(crate) fn new() -> Self {
        Self {
            state: ExecutorState::new(),
            thread: Mutex::default(),
            executor_tid: AtomicI32::new(0),
            guest_tid: AtomicI32::new(0),
            foreign: Mutex::default(),
            ends: AtomicBool::new(false),
            is_watching: AtomicBool::new(false),
            bell: WaitBell::default(),
        }
    }

    /// The calling thread is the executor.
    pub(crate) fn set_executor(&self) {
        *self.thread.lock() = Some(thread::current());
        self.executor_tid.store(sys::thread_id(), Ordering::Release);
    }

    /// Makes the executor end as soon as it has nothing to run.
    pub(crate) fn end_executor(&self) {
        self.ends.store(true, Ordering::Release);
        self.kick();
    }

    /// Whether the executor is to end.
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    /// The executor's thread has ended. There may be another one later.
    pub(crate) fn clear_executor(&self) {
        self.executor_tid.store(0, Ordering::Release);
        *self.thread.lock() = None;
        self.ends.store(false, Ordering::Release);
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
            Notify::Signal => self.kick_guest(),
            // An executor that has gone from one kind of sleep to the other since has seen the kick.
            Notify::Unpark if self.is_watching.load(Ordering::Relaxed) => self.bell.ring(),
            Notify::Unpark => {
                if let Some(thread) = &*self.thread.lock() {
                    thread.unpark();
                }
            }
        }
    }

    /// Makes the thread that runs a vCPU for the executor leave the guest.
    fn kick_guest(&self) {
        match self.guest_tid.load(Ordering::Acquire) {
            0 => {
                let foreign = self.foreign.lock().clone();
                // Without one the vCPU has been given back.
                if let Some(vcpu) = foreign {
                    vcpu.kick(sys::monotonic_ns());
                }
            }
            tid => kick_handler::send(tid),
        }
    }

    /// The executor is about to wait for a thread of another process, which has the command to run a vCPU and which
    /// kicks reach by `vcpu`. False: a kick is pending, which has not reached it.
    pub(crate) fn wait_for_thread(&self, vcpu: &Arc<VcpuKick>) -> bool {
        // Before the state changes: a kicker that finds the executor in the guest reads this.
        *self.foreign.lock() = Some(Arc::clone(vcpu));
        self.guest_tid.store(0, Ordering::Release);
        self.state.enter_guest()
    }

    /// The thread of another process has given the vCPU back, or is given up.
    pub(crate) fn waited_for_thread(&self) {
        self.state.return_to_host();
        // It has open files, which have to go with its guest.
        self.foreign.lock().take();
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

    /// The same until one of `watches` has its answer. Returns why the wait has ended; `None`: a kick was pending.
    pub(crate) fn sleep_watching(
        &self,
        watches: &[AnswerWatch],
        timeout: Option<Duration>,
    ) -> Option<WaitEnd> {
        // Both before the state changes: a kicker that finds the executor asleep rings after that.
        let rung = self.bell.rung();
        self.is_watching.store(true, Ordering::Relaxed);
        let end = self.state.fall_asleep().then(|| {
            let end = self.bell.wait(rung, watches, timeout);
            self.state.return_to_host();
            end
        });
        self.is_watching.store(false, Ordering::Relaxed);
        end
    }

    /// Whether a kick has come since the last call.
    pub(crate) fn take_kick(&self) -> bool {
        self.state.take_kick()
    }
}

impl Kicks for KickTarget {
    fn enter_guest(&self) -> bool {
        // Before the state changes: a kicker that finds the executor in the guest signals this thread.
        self.guest_tid.store(sys::thread_id(), Ordering::Release);
        self.state.enter_guest()
    }

    fn is_kicked(&self) -> bool {
        self.state.is_kicked()
    }

    fn leave_guest(&self) {
        self.state.return_to_host();
    }
}
