//! Where a device's thread receives the policy's grants of a host CPU.

use std::sync::atomic::{AtomicBool, Ordering};

use vcpu_sched::{Grant, WorkerOrder};

use crate::sync::{Condvar, Mutex};

/// Receives the policy's orders for one worker.
#[derive(Debug, Default)]
pub(crate) struct GrantInbox {
    state: Mutex<InboxState>,
    changed: Condvar,
    /// The worker should stop between two pieces of its work.
    revoked: AtomicBool,
}

#[derive(Debug, Default)]
struct InboxState {
    granted: Option<Grant>,
    closed: bool,
}

impl GrantInbox {
    /// Receives an order of the policy.
    pub(crate) fn receive(&self, order: WorkerOrder) {
        match order {
            WorkerOrder::Work(grant) => {
                self.revoked.store(false, Ordering::Relaxed);
                self.state.lock().granted = Some(grant);
                self.changed.notify_one();
            }
            WorkerOrder::Stop(_) => self.revoked.store(true, Ordering::Relaxed),
        }
    }

    /// There will be no further grant.
    pub(crate) fn close(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for a grant and takes it. `None`: there will be none.
    pub(crate) fn wait(&self) -> Option<Grant> {
        let waits = |state: &mut InboxState| !state.closed && state.granted.is_none();
        let mut state = self.changed.wait_while(self.state.lock(), waits);
        if state.closed {
            return None;
        }
        state.granted.take()
    }

    /// Whether the worker should stop soon.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use vcpu_sched::{CpuId, VcpuId, WorkerId};

    use super::*;

    fn grant() -> Grant {
        Grant {
            worker: WorkerId(0),
            cpu: CpuId(0),
            donor: VcpuId(0),
            limit: 7,
        }
    }

    #[test]
    fn a_grant_is_waited_for_and_taken_once() {
        let inbox = Arc::new(GrantInbox::default());
        let waiter = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || [inbox.wait(), inbox.wait()]
        });
        inbox.receive(WorkerOrder::Work(grant()));
        // The second wait finds no grant, and ends when the inbox is closed.
        while inbox.state.lock().granted.is_some() {
            thread::yield_now();
        }
        inbox.close();
        assert_eq!(waiter.join().expect("thread"), [Some(grant()), None]);
    }

    #[test]
    fn a_new_grant_ends_the_revocation_of_the_one_before() {
        let inbox = GrantInbox::default();
        inbox.receive(WorkerOrder::Work(grant()));
        inbox.receive(WorkerOrder::Stop(WorkerId(0)));
        assert!(inbox.is_revoked());
        inbox.receive(WorkerOrder::Work(grant()));
        assert!(!inbox.is_revoked());
    }
}
