//! A device's thread that has work, and another thread that takes its guest out of the pool and gives the
//! worker's id to another guest, under every interleaving. A thread that is not woken is a deadlock, which loom
//! reports.

use vcpu_sched::{CpuId, VcpuId};

use super::*;
use crate::sync::{Arc as LoomArc, Mutex, thread};

const ID: WorkerId = WorkerId(0);
const LEAVES: GuestId = GuestId(0);
const JOINS: GuestId = GuestId(1);

/// What the pool's lock protects.
struct State {
    workers: WorkerTable,
    /// Reports in the name of the guest that joins.
    of_other: usize,
}

impl State {
    /// A report of the worker whose orders arrive in `inbox`.
    fn report(&mut self, inbox: &Arc<GrantInbox>) -> bool {
        let guest = self.workers.guest(ID, inbox);
        self.of_other += usize::from(guest == Some(JOINS));
        guest.is_some()
    }
}

#[test]
fn loom_the_thread_of_a_device_ends_with_its_guest_and_never_reports_for_the_worker_that_gets_its_id()
 {
    loom::model(|| {
        let mut workers = WorkerTable::default();
        workers.add(ID, LEAVES);
        let inbox = workers.inbox(ID).expect("added");
        let pool = LoomArc::new(Mutex::new(State {
            workers,
            of_other: 0,
        }));
        let device = thread::spawn({
            let (pool, inbox) = (LoomArc::clone(&pool), Arc::clone(&inbox));
            move || {
                // Ready, and granted at once if its guest is still there.
                let order = {
                    let mut state = pool.lock();
                    let is_there = state.report(&inbox);
                    let grant = WorkerOrder::Work(Grant {
                        worker: ID,
                        cpu: CpuId(0),
                        donor: VcpuId(0),
                        limit: 1,
                    });
                    is_there.then(|| state.workers.address(grant)).flatten()
                };
                if let Some((to, order)) = order {
                    to.receive(order);
                }
                let granted = inbox.wait();
                let mut state = pool.lock();
                if state.report(&inbox) {
                    state.workers.stopped(ID);
                }
                granted.is_some()
            }
        });
        inbox.close();
        {
            let mut state = pool.lock();
            state.workers.remove(ID);
            state.workers.add(ID, JOINS);
        }
        let _ = device.join().unwrap();
        assert_eq!(pool.lock().of_other, 0);
    });
}
