//! When, where and on whose budget the threads of a guest's devices work.

use crate::pool::{MS, Pool, US, quiet};
use vcpu_sched::{
    CpuId, CpuTime, Exhaustion, Grant, Reservation, SchedParams, StopReason, WorkerId, WorkerOrder,
};

fn orders(p: &mut Pool) -> Vec<WorkerOrder> {
    p.policy.take_worker_orders().collect()
}

/// The grants among the orders.
fn grants(p: &mut Pool) -> Vec<Grant> {
    let grant = |order| match order {
        WorkerOrder::Work(grant) => Some(grant),
        WorkerOrder::Stop(_) => None,
    };
    orders(p).into_iter().filter_map(grant).collect()
}

fn ready(p: &mut Pool, worker: WorkerId) -> Vec<Grant> {
    p.policy.worker_ready(worker, p.now);
    grants(p)
}

fn stops(p: &mut Pool, worker: WorkerId, spent: u64) -> Vec<Grant> {
    p.policy.worker_stopped(worker, CpuTime(spent), p.now);
    grants(p)
}

#[test]
fn a_worker_works_at_once_on_an_idle_cpu_and_its_guest_is_charged() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    let worker = p.policy.add_worker(g);
    assert_eq!((p.pick(0), p.pick(1)), (None, None));
    let granted = ready(&mut p, worker);
    let [Grant { donor, limit, .. }] = granted[..] else {
        panic!("{granted:?}");
    };
    assert_eq!((donor, limit), (v, 250 * US));
    stops(&mut p, worker, 200 * US);
    assert_eq!(p.counters(v).elsewhere_ns, 200 * US);
}

#[test]
fn the_workers_of_a_guest_get_no_more_than_its_hard_reservations() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let vcpus = [p.hard(g, 1, 100), p.hard(g, 1, 100)];
    let worker = p.policy.add_worker(g);
    assert_eq!((p.pick(0), p.pick(1)), (None, None));
    // A worker that always has something to do, and uses all that it gets and a little more.
    let mut used = 0;
    let mut works = !ready(&mut p, worker).is_empty();
    while p.now < 1_000 * MS {
        if works {
            p.pass(300 * US);
            used += 300 * US;
            stops(&mut p, worker, 300 * US);
            works = !ready(&mut p, worker).is_empty();
        } else {
            p.now = p.policy.next_timer().unwrap();
            assert_eq!(p.pick(0), None);
            works = !grants(&mut p).is_empty();
        }
    }
    assert_eq!(
        vcpus.map(|v| p.counters(v).charged_ns).iter().sum::<u64>(),
        used
    );
    assert!((19 * MS..=22 * MS + 600 * US).contains(&used), "{used}");
}

#[test]
fn a_worker_whose_guest_gets_a_new_budget_may_begin_on_a_cpu_that_does_not_pick() {
    let mut p = Pool::new(2);
    let (g, h) = (p.guest(), p.guest());
    let own = p.hard(g, 1, 100);
    let urgent = p.hard_on(h, 10, 20, Some(&[0]));
    let later = p.hard_on(h, 400, 1000, Some(&[1]));
    let worker = p.policy.add_worker(g);
    p.policy.charge_elsewhere(own, CpuTime(MS), p.now);
    p.now = 95 * MS;
    p.wake(urgent);
    p.wake(later);
    assert_eq!(p.pick(0), Some((urgent, urgent)));
    assert_eq!(p.pick(1), Some((later, later)));
    assert_eq!(ready(&mut p, worker), [], "the budget is used up");
    p.run(0, 5 * MS, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((urgent, urgent)));
    let granted = grants(&mut p);
    assert_eq!(
        granted.iter().map(|g| (g.cpu, g.donor)).collect::<Vec<_>>(),
        [(CpuId(1), own)]
    );
}

#[test]
fn a_worker_does_not_work_on_what_is_left_of_a_budget_whose_deadline_has_passed() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let short = Reservation::new(2 * MS, 20 * MS, 5 * MS, Exhaustion::Hard).unwrap();
    let v = p
        .policy
        .add_vcpu(g, SchedParams::Reserved(short), None)
        .unwrap();
    let worker = p.policy.add_worker(g);
    p.wake(v);
    assert_eq!(p.pick(0), Some((v, v)));
    p.run(0, MS, StopReason::Halted(None), quiet());
    p.now = 6 * MS;
    p.wake(v);
    assert_eq!(p.pick(0), None, "throttled until its next period");
    assert_eq!(ready(&mut p, worker), []);
    p.now = 20 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(grants(&mut p).len(), 1);
}

#[test]
fn a_best_effort_guest_does_not_work_where_a_reservation_is_served() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let reserved = p.hard(g, 5, 10);
    p.best_effort(h, 100);
    let worker = p.policy.add_worker(h);
    p.wake(reserved);
    assert_eq!(p.pick(0), Some((reserved, reserved)));
    assert_eq!(ready(&mut p, worker), []);
    p.run(0, 5 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), None, "throttled");
    assert_eq!(grants(&mut p).len(), 1, "now the CPU is idle");
}

#[test]
fn a_reserved_guest_works_where_best_effort_runs() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let hog = p.best_effort(g, 100);
    let reserved = p.hard(h, 5, 10);
    let worker = p.policy.add_worker(h);
    p.wake(hog);
    assert_eq!(p.pick(0), Some((hog, hog)));
    let granted = ready(&mut p, worker);
    assert_eq!(
        granted.iter().map(|g| (g.cpu, g.donor)).collect::<Vec<_>>(),
        [(CpuId(0), reserved)]
    );
}

#[test]
fn a_worker_is_ordered_to_stop_when_something_more_urgent_takes_its_cpu() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    p.best_effort(g, 100);
    let reserved = p.hard(h, 5, 10);
    let worker = p.policy.add_worker(g);
    assert_eq!(p.pick(0), None);
    assert_eq!(ready(&mut p, worker).len(), 1);
    p.wake(reserved);
    assert_eq!(p.pick(0), Some((reserved, reserved)));
    assert_eq!(orders(&mut p), [WorkerOrder::Stop(worker)]);
    stops(&mut p, worker, 20 * US);
    assert_eq!(ready(&mut p, worker), [], "it waits now");
}

#[test]
fn workers_of_best_effort_guests_share_with_vcpus_by_what_they_used() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let works = p.best_effort(g, 100);
    let hog = p.best_effort(h, 100);
    let worker = p.policy.add_worker(g);
    p.wake(hog);
    p.pick(0);
    // The guest of the worker has nothing else to run. The worker always has something to do.
    let mut waits = ready(&mut p, worker).is_empty();
    while p.now < 2_000 * MS {
        if waits {
            p.pass(4 * MS);
            p.stop(0, StopReason::Preempted, quiet());
            p.pick(0);
            waits = grants(&mut p).is_empty();
        } else {
            p.pass(250 * US);
            stops(&mut p, worker, 250 * US);
            waits = ready(&mut p, worker).is_empty();
        }
    }
    p.stop(0, StopReason::Preempted, quiet());
    let (one, other) = (p.counters(works).charged_ns, p.counters(hog).charged_ns);
    // The vCPU is charged for the time of the CPU also while the worker works beside it.
    assert!(one.abs_diff(other) <= 8 * MS, "{one} {other}");
}

#[test]
fn a_vcpu_that_is_alone_gets_slices_when_a_worker_waits() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let used = p.best_effort(g, 1);
    let hog = p.best_effort(h, 100);
    let worker = p.policy.add_worker(g);
    p.policy.charge_elsewhere(used, CpuTime(100 * MS), 0);
    p.wake(hog);
    assert_eq!(p.decide(0).unwrap().until, None);
    p.policy.charge_elsewhere(used, CpuTime(100 * MS), 0);
    assert_eq!(ready(&mut p, worker), []);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert!(p.decide(0).unwrap().until.is_some());
}

#[test]
fn one_worker_at_a_time_works_on_a_cpu_unless_the_other_sleeps() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    p.hard(g, 4, 10);
    p.hard(h, 4, 10);
    let (first, second) = (p.policy.add_worker(g), p.policy.add_worker(h));
    assert_eq!(p.pick(0), None);
    assert_eq!(ready(&mut p, first).len(), 1);
    assert_eq!(ready(&mut p, second), []);
    let granted = stops(&mut p, first, 100 * US);
    assert_eq!(granted[0].worker, second);
    // The second worker sleeps in a system call: after a while it no longer counts.
    assert_eq!(ready(&mut p, first), []);
    p.pass(2 * MS);
    assert_eq!(p.pick(0), None);
    assert_eq!(grants(&mut p)[0].worker, first);
    stops(&mut p, second, 10 * US);
    assert_eq!(
        ready(&mut p, second),
        [],
        "the first worker works there now"
    );
}

#[test]
fn the_vcpus_of_a_guest_take_turns_as_donors_and_one_without_budget_is_passed_over() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let vcpus: Vec<_> = (0..3).map(|_| p.hard(g, 1, 100)).collect();
    let worker = p.policy.add_worker(g);
    assert_eq!(p.pick(0), None);
    p.policy.charge_elsewhere(vcpus[1], CpuTime(5 * MS), p.now);
    let mut donors = Vec::new();
    for _ in 0..4 {
        donors.push(ready(&mut p, worker)[0].donor);
        stops(&mut p, worker, US);
    }
    assert_eq!(donors, [vcpus[0], vcpus[2], vcpus[0], vcpus[2]]);
}
