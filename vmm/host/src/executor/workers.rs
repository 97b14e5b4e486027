//! The threads of guests' devices, as the policy's helpers: each asks the policy before it works, waits
//! until it is granted a host CPU, goes there, and reports what it used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use baton_machine::devices::Granter;
use baton_os::sys;
use vcpu_sched::{CpuTime, Grant, Ns, WorkerId, WorkerOrder};

use super::pins::{Pinned, Pins};
use super::pool::Pool;
use crate::halt::set_short_slice;
use crate::sync::{Condvar, Mutex};

/// Where the policy's orders for one helper arrive.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    state: Mutex<State>,
    changed: Condvar,
    /// It should stop between two pieces of its work.
    revoked: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    granted: Option<Grant>,
    closed: bool,
}

impl Seat {
    /// Passes an order of the policy on.
    pub(crate) fn order(&self, order: WorkerOrder) {
        match order {
            WorkerOrder::Work(grant) => {
                self.revoked.store(false, Ordering::Relaxed);
                self.state.lock().granted = Some(grant);
                self.changed.notify_one();
            }
            WorkerOrder::Stop(_) => self.revoked.store(true, Ordering::Relaxed),
        }
    }

    /// Nothing is granted any more.
    pub(crate) fn close(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for a grant. `None`: closed.
    fn wait(&self) -> Option<Grant> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(grant) = state.granted.take() {
                return Some(grant);
            }
            state = self.changed.wait(state);
        }
    }
}

/// One device's thread.
#[derive(Debug)]
pub(crate) struct Helper {
    id: WorkerId,
    seat: Arc<Seat>,
    /// A device may live longer than the run's scheduler.
    pool: Weak<Pool>,
    /// Host CPUs of the pool, in the policy's order.
    host_cpus: Arc<[usize]>,
    /// The one that the thread is pinned to; `None` before the first time.
    pinned: Mutex<Option<Pinned>>,
}

impl Helper {
    pub(crate) fn new(
        id: WorkerId,
        seat: Arc<Seat>,
        pool: &Arc<Pool>,
        host_cpus: Arc<[usize]>,
    ) -> Self {
        Self {
            id,
            seat,
            pool: Arc::downgrade(pool),
            host_cpus,
            pinned: Mutex::new(None),
        }
    }

    /// Goes to the host CPU of `grant`.
    fn go(&self, grant: &Grant, pins: &Pins) {
        let Some(&host_cpu) = self.host_cpus.get(grant.cpu.index()) else {
            return;
        };
        let mut pinned = self.pinned.lock();
        let pinned = pinned.get_or_insert_with(|| {
            // Once: it runs only where it may preempt what runs there.
            set_short_slice();
            Pinned::default()
        });
        pinned.go(host_cpu, pins);
    }
}

impl Granter for Helper {
    fn begin(&self) -> Option<Ns> {
        let pool = self.pool.upgrade()?;
        let after = {
            let mut state = pool.lock();
            state.sched.worker_ready(self.id, sys::monotonic_ns());
            state.after()
        };
        pool.finish(after);
        // The end of the run must not wait for this one.
        drop(pool);
        let grant = self.seat.wait()?;
        self.go(&grant, &self.pool.upgrade()?.pins);
        Some(grant.limit)
    }

    fn end(&self, spent_ns: Ns) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let after = {
            let mut state = pool.lock();
            state
                .sched
                .worker_stopped(self.id, CpuTime(spent_ns), sys::monotonic_ns());
            state.after()
        };
        pool.finish(after);
    }

    fn is_revoked(&self) -> bool {
        self.seat.revoked.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.seat.close();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use vcpu_sched::{CpuId, VcpuId};

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
        let seat = Arc::new(Seat::default());
        let waits = thread::spawn({
            let seat = Arc::clone(&seat);
            move || [seat.wait(), seat.wait()]
        });
        seat.order(WorkerOrder::Work(grant()));
        // The second wait finds no grant, and ends when the seat is closed.
        while seat.state.lock().granted.is_some() {
            thread::yield_now();
        }
        seat.close();
        assert_eq!(waits.join().expect("thread"), [Some(grant()), None]);
    }

    #[test]
    fn a_new_grant_ends_the_revocation_of_the_one_before() {
        let seat = Seat::default();
        seat.order(WorkerOrder::Work(grant()));
        seat.order(WorkerOrder::Stop(WorkerId(0)));
        assert!(seat.revoked.load(Ordering::Relaxed));
        seat.order(WorkerOrder::Work(grant()));
        assert!(!seat.revoked.load(Ordering::Relaxed));
    }
}
