//! The priority of a vCPU's thread of another process, which it has while it has the command to run its vCPU.
//!
//! | the thread | its policy for the host's scheduler |
//! |---|---|
//! | has the command to run | `SCHED_FIFO` with the priority of the pool's vCPUs |
//! | has answered, sleeps by command, or is given up | the ordinary one that it had |
//! | was found on another host CPU than its command names | the ordinary one, for a second |
//!
//! With the priority, ordinary programs do not keep the thread from its CPU, those of its own user included. Without
//! a command it must not have it, for the process decides what the thread does. The executor runs at one more, so it
//! preempts a thread that does not come back. What the process may do to its own thread meanwhile, the executor finds
//! within a check: another CPU, or another policy. Children of the thread do not inherit the priority.
//!
//! A thread pins itself to the CPU that a command names. Where another vCPU's thread with the same priority runs on the
//! CPU to which it is still pinned, it could not do that. So with a priority, the executor pins it before the command.

use std::io;
use std::sync::Arc;

use baton_config::ExecutorPriority;
use baton_link::foreign_clock::ForeignThreadClock;
use baton_os::sys::{self, SchedPolicy};
use vcpu_sched::Ns;

/// For how long a thread that was found elsewhere has no priority, ns.
const WITHHELD: Ns = 1_000_000_000;

/// The priority of one thread of another process.
#[derive(Debug)]
pub(super) struct CommandPriority {
    tid: i32,
    /// Shows whether the thread still runs. If not, another thread may have its id.
    clock: Arc<ForeignThreadClock>,
    priority: ExecutorPriority,
    has_it: bool,
    /// The host CPU to which the executors have pinned the thread, unless it has left that since.
    pinned_to: Option<usize>,
    withheld_until: Ns,
}

impl CommandPriority {
    /// For the thread `tid`, which has `clock`: it gets `priority` with each command to run. A user who has chosen
    /// another policy than an ordinary one for it keeps that.
    pub(super) fn new(
        tid: i32,
        clock: Arc<ForeignThreadClock>,
        priority: ExecutorPriority,
    ) -> Self {
        let mut this = Self {
            tid,
            clock,
            priority,
            has_it: false,
            pinned_to: None,
            withheld_until: 0,
        };
        if priority != ExecutorPriority::Off {
            match sys::policy_of(tid) {
                Ok(SchedPolicy::Ordinary) => {}
                // A pool that was killed while the thread had a command could not take it back.
                Ok(SchedPolicy::Fifo {
                    reset_on_fork: true,
                    ..
                }) => {
                    this.has_it = true;
                    this.end();
                }
                _ => this.priority = ExecutorPriority::Off,
            }
        }
        this
    }

    /// The thread gets the command to run on `host_cpu`.
    ///
    /// # Errors
    /// The host's reason, if it refuses the priority. It is not asked again.
    pub(super) fn begin(&mut self, host_cpu: usize, now: Ns) -> io::Result<()> {
        let ExecutorPriority::Fifo(priority) = self.priority else {
            return Ok(());
        };
        if now < self.withheld_until || !self.is_there() {
            return Ok(());
        }
        if self.pinned_to != Some(host_cpu) {
            match sys::set_affinity_of(self.tid, &[host_cpu]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.priority = ExecutorPriority::Off;
                    return Err(error);
                }
                // A thread that may not use this CPU now gets no priority elsewhere.
                Err(_) => return Ok(()),
            }
            self.pinned_to = Some(host_cpu);
        }
        match sys::set_fifo_policy_of(self.tid, priority) {
            Ok(()) => {
                self.has_it = true;
                Ok(())
            }
            // It has ended in this moment.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(error) => {
                self.priority = ExecutorPriority::Off;
                Err(error)
            }
        }
    }

    /// The thread has the command to run on `host_cpu` for a while. It loses the priority if it may run elsewhere.
    pub(super) fn check(&mut self, host_cpu: usize) {
        if self.has_it && !self.is_pinned_to(host_cpu) {
            self.withheld_until = sys::monotonic_ns().saturating_add(WITHHELD);
            self.pinned_to = None;
            self.end();
        }
    }

    /// The thread gets the command to sleep, for which it pins itself elsewhere.
    pub(super) fn leaves_cpu(&mut self) {
        self.pinned_to = None;
    }

    /// Whether the thread, which has the command to run on `host_cpu`, is as it is to be: with the priority, and there
    /// alone. Without a priority, it is as it likes, but not a thread that runs only where nothing else wants to.
    pub(super) fn is_as_told(&self, host_cpu: usize) -> bool {
        match sys::policy_of(self.tid) {
            Ok(SchedPolicy::Fifo { .. }) if self.has_it => self.is_pinned_to(host_cpu),
            Ok(SchedPolicy::Idle) | Err(_) => false,
            Ok(_) => !self.has_it,
        }
    }

    /// The thread has answered, or is given up.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.has_it) && self.is_there() {
            // Who was permitted to give it may take it back.
            let _ = sys::end_fifo_policy_of(self.tid);
        }
    }

    fn is_pinned_to(&self, host_cpu: usize) -> bool {
        sys::affinity_of(self.tid).is_ok_and(|cpus| cpus == [host_cpu])
    }

    /// Whether the thread still runs, so that its id is its own. All ids of the host would have to be used once
    /// until another thread gets it, so it is its own for the call that follows.
    fn is_there(&self) -> bool {
        self.clock.ran_ns().is_ok()
    }
}

impl Drop for CommandPriority {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Has `test` run with the priority of a thread that waits, and the host CPU to which that is pinned. Not if this user
    /// may give none.
    fn with_thread(test: impl FnOnce(&mut CommandPriority, i32, usize)) {
        let (send, receive) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let clock = ForeignThreadClock::of_this_thread().expect("a clock");
            send.send((sys::thread_id(), clock)).expect("received");
            let _ = wait.recv();
        });
        let (tid, clock) = receive.recv().expect("it runs");
        let mut priority = CommandPriority::new(tid, Arc::new(clock), ExecutorPriority::Fifo(1));
        let cpu = sys::affinity().expect("affinity")[0];
        match priority.begin(cpu, sys::monotonic_ns()) {
            Ok(()) => test(&mut priority, tid, cpu),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        drop(end);
        thread.join().expect("it ends");
        priority.end();
        assert!(!priority.has_it);
    }

    fn has_priority(tid: i32) -> bool {
        matches!(sys::policy_of(tid), Ok(SchedPolicy::Fifo { .. }))
    }

    #[test]
    fn a_thread_has_the_priority_with_a_command_only() {
        with_thread(|priority, tid, cpu| {
            assert!(has_priority(tid));
            priority.end();
            assert!(!has_priority(tid));
            priority.begin(cpu, sys::monotonic_ns()).expect("as before");
            assert!(has_priority(tid));
        });
    }

    #[test]
    fn a_thread_that_may_run_elsewhere_loses_the_priority_and_gets_it_again_later() {
        with_thread(|priority, tid, cpu| {
            priority.check(cpu);
            assert!(has_priority(tid) && priority.is_as_told(cpu));
            assert!(!priority.is_as_told(cpu + 1));
            priority.check(cpu + 1);
            assert!(!has_priority(tid));
            let now = sys::monotonic_ns();
            priority.begin(cpu, now).expect("nothing is tried");
            assert!(!has_priority(tid));
            priority.begin(cpu, now + WITHHELD).expect("as before");
            assert!(has_priority(tid));
        });
    }

    #[test]
    fn a_thread_that_has_changed_its_policy_is_not_as_told() {
        with_thread(|priority, tid, cpu| {
            assert!(priority.is_as_told(cpu));
            sys::end_fifo_policy_of(tid).expect("lower");
            assert!(!priority.is_as_told(cpu));
        });
    }
}
