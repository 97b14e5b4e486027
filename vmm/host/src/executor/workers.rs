//! The threads of guests' devices, which the policy calls workers. Each reports to the policy that it
//! has work, waits for the grant of a host CPU, works there, and reports what it used.

use std::sync::{Arc, Weak};

use baton_machine::devices::CpuGranter;
use baton_os::sys;
use vcpu_sched::{CpuTime, Grant, Ns, WorkerId};

use super::cpu_grant::GrantInbox;
use super::pins::Pinned;
use super::pool::Pool;
use super::pool_state::PoolState;
use crate::sync::Mutex;

/// One device's thread.
#[derive(Debug)]
pub(crate) struct DeviceWorker {
    id: WorkerId,
    inbox: Arc<GrantInbox>,
    /// A device may live longer than the run's scheduler.
    pool: Weak<Pool>,
    /// Host CPUs of the pool, in the policy's order.
    host_cpus: Arc<[usize]>,
    /// The host CPU that the thread is pinned to; `None` before the first grant.
    pinned: Mutex<Option<Pinned>>,
}

impl DeviceWorker {
    /// The worker `id`, whose orders arrive in `inbox`.
    pub(crate) fn new(id: WorkerId, inbox: Arc<GrantInbox>, pool: &Arc<Pool>) -> Self {
        Self {
            id,
            inbox,
            pool: Arc::downgrade(pool),
            host_cpus: Arc::clone(pool.host_cpus()),
            pinned: Mutex::new(None),
        }
    }

    /// Pins the calling thread, which is the worker, to the host CPU of `grant`.
    fn go_to(&self, grant: &Grant, pool: &Pool) {
        let Some(&host_cpu) = self.host_cpus.get(grant.cpu.index()) else {
            return;
        };
        let mut pinned = self.pinned.lock();
        let pinned = pinned.get_or_insert_with(|| {
            // Once for the thread: it runs only where it may preempt what runs there.
            pool.priority.preempt();
            Pinned::default()
        });
        pinned.go_to(host_cpu, &pool.pins);
    }
}

/// Reports something to the policy, and does what follows.
fn report(pool: &Pool, to_policy: impl FnOnce(&mut PoolState, Ns)) {
    let after = {
        let mut state = pool.lock();
        to_policy(&mut state, sys::monotonic_ns());
        state.after_unlock()
    };
    pool.finish(after);
}

impl CpuGranter for DeviceWorker {
    fn acquire(&self) -> Option<Ns> {
        let pool = self.pool.upgrade()?;
        report(&pool, |state, now| {
            state.worker_ready(self.id, &self.inbox, now);
        });
        // The end of the run must not wait for this thread.
        drop(pool);
        let grant = self.inbox.wait()?;
        self.go_to(&grant, &*self.pool.upgrade()?);
        Some(grant.limit)
    }

    fn release(&self, spent_ns: Ns) {
        if let Some(pool) = self.pool.upgrade() {
            report(&pool, |state, now| {
                state.worker_stopped(self.id, &self.inbox, CpuTime(spent_ns), now);
            });
        }
    }

    fn is_revoked(&self) -> bool {
        self.inbox.is_revoked()
    }

    fn close(&self) {
        self.inbox.close();
    }
}
