//! Guests that join and leave a pool without executors, and ids that name others afterwards.

use baton_machine::kvm;
use baton_observe::metrics::MetricsSource;
use vcpu_sched::{Doing, GuestId, WorkerOrder};

use super::*;
use crate::executor::cpu_grant::GrantInbox;
use crate::executor::metrics_source::PoolMetrics;
use crate::executor::pool_handle::PoolHandle;

/// A handle of a pool whose CPU idles.
fn handle() -> PoolHandle {
    let pool = Arc::new(empty_pool());
    assert!(pool.lock().sched.pick(CPU, 0).is_none());
    PoolHandle::new(&pool)
}

/// Has a guest of two vCPUs join. Returns what stays of it, and its ids.
fn join(handle: &PoolHandle, name: &str) -> (Arc<GuestRecord>, PolicyIds) {
    let kvm = kvm::open().expect("KVM");
    let ready = ready_guest(&kvm, name);
    let record = Arc::clone(ready.guest.record());
    handle.join(ready).expect("room");
    let ids = ids(handle, &record).expect("it has joined");
    (record, ids)
}

fn ids(handle: &PoolHandle, record: &GuestRecord) -> Option<PolicyIds> {
    let state = handle.pool.lock();
    let id = state.guests.of_record(record)?;
    state.guests.get(id).map(|guest| guest.ids().clone())
}

/// The names in the metrics, and the numbers of vCPUs that come with them.
fn shown(handle: &PoolHandle) -> (Vec<String>, usize) {
    let snapshot = PoolMetrics::new(&handle.pool, Vec::new()).snapshot();
    let names = snapshot.names.vcpus.iter();
    let names = names.map(|name| format!("{}/{}", name.guest_name, name.index));
    (names.collect(), snapshot.vcpus.len())
}

#[test]
fn a_guest_that_joins_gets_the_ids_of_one_that_has_left_and_nothing_else_of_it() {
    let handle = handle();
    let (first, ids_of_first) = join(&handle, "first");
    join(&handle, "second");
    let account = handle.leave("first").expect("it is there");
    assert_eq!(account.record.ended(), Some(GuestEnd::Removed));
    assert_eq!(ids(&handle, &first), None);
    let (_, ids_of_third) = join(&handle, "third");
    assert_eq!(ids_of_third, ids_of_first);
    let names = ["second/0", "second/1", "third/0", "third/1"].map(String::from);
    assert_eq!(shown(&handle), (names.to_vec(), 4));

    // The thread that noticed the end of the first one may come this late.
    handle.pool.remove_guest(&first);
    let state = handle.pool.lock();
    for &vcpu in ids_of_third.vcpus().iter() {
        let view = state.sched.view(vcpu).expect("it is there");
        assert_ne!(view.doing, Doing::Gone);
    }
}

#[test]
fn the_ids_of_a_guest_name_no_other_before_the_thread_of_its_device_has_stopped() {
    let handle = handle();
    let (record, ids_of_guest) = join(&handle, "guest");
    let (worker, inbox) = add_worker(&handle, ids_of_guest.guest());
    let pool = &handle.pool;
    pool.change(|state, now| state.worker_ready(worker, &inbox, now));
    assert!(inbox.wait().is_some(), "the CPU is idle");
    handle
        .leave("guest")
        .expect("it does not wait for the thread");
    assert!(inbox.is_revoked());
    assert_eq!(ids(&handle, &record), Some(ids_of_guest.clone()));
    let (_, other) = join(&handle, "guest");
    assert_ne!(other, ids_of_guest, "the name is free, and the ids are not");

    pool.change(|state, now| state.worker_stopped(worker, &inbox, CpuTime(1), now));
    assert_eq!(ids(&handle, &record), None);
    let (_, next) = join(&handle, "next");
    assert_eq!(next, ids_of_guest);
    let (same_id, others_inbox) = add_worker(&handle, next.guest());
    assert_eq!(same_id, worker);
    pool.change(|state, now| state.worker_ready(worker, &inbox, now));
    let orders = pool.lock().sched.take_worker_orders();
    assert_eq!(orders, [], "a report of the guest that has left");
    pool.change(|state, now| state.worker_ready(worker, &others_inbox, now));
    assert!(others_inbox.wait().is_some());
}

/// Adds the thread of a device to a guest that has joined.
fn add_worker(handle: &PoolHandle, guest: GuestId) -> (WorkerId, Arc<GrantInbox>) {
    handle.pool.change(|state, _| {
        let worker = state.sched.add_worker(guest);
        state.workers.add(worker, guest);
        let row = state.guests.get_mut(guest).expect("it has joined");
        row.workers.push(worker);
        (worker, state.workers.inbox(worker).expect("added"))
    })
}

#[test]
fn a_guest_is_at_rest_once_the_threads_of_its_devices_have_stopped() {
    let handle = handle();
    let (_, ids) = join(&handle, "guest");
    let (worker, inbox) = add_worker(&handle, ids.guest());
    let pool = &handle.pool;
    pool.change(|state, now| state.worker_ready(worker, &inbox, now));
    assert!(inbox.wait().is_some(), "the CPU is idle");
    let pauser = std::thread::spawn({
        let handle = handle.clone();
        move || handle.pause("guest")
    });
    while !inbox.is_revoked() {
        std::thread::yield_now();
    }
    assert!(!pauser.is_finished(), "the thread has not stopped");
    pool.change(|state, now| state.worker_stopped(worker, &inbox, CpuTime(1), now));
    assert_eq!(pauser.join().expect("no panic"), Ok(()));
    pool.change(|state, now| state.worker_ready(worker, &inbox, now));
    let orders = pool.change(|state, _| state.sched.take_worker_orders());
    assert_eq!(orders, [], "a paused guest is granted nothing");
    handle.resume("guest").expect("it is paused");
    let granted: Option<WorkerOrder> = inbox.wait().map(WorkerOrder::Work);
    assert!(granted.is_some());
}
