//! Guests that are paused.

use crate::pool::{MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{
    Config, CpuId, CpuTime, Doing, Event, GuestId, PolicyKind, SchedParams, StopReason, VcpuId,
    WorkerOrder,
};

impl Pool {
    fn pause(&mut self, guest: GuestId) {
        assert!(self.policy.pause(guest, self.now));
    }

    fn resume(&mut self, guest: GuestId) {
        assert!(self.policy.resume(guest, self.now));
    }

    fn doing(&self, vcpu: VcpuId) -> Doing {
        self.policy.view(vcpu).unwrap().doing
    }
}

#[test]
fn what_runs_is_stopped_and_runs_again_when_it_is_resumed() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.best_effort(g, 100);
    p.wake(v);
    p.pick(0);
    p.kicks();
    p.pause(g);
    assert_eq!(p.kicks(), [0]);
    assert!(!p.policy.pause(g, p.now), "it is paused already");
    p.run(0, 10 * US, StopReason::Preempted, quiet());
    assert_eq!((p.pick(0), p.doing(v)), (None, Doing::Paused));
    p.pass(7 * MS);
    p.resume(g);
    assert!(!p.policy.resume(g, p.now), "it is not paused");
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(p.counters(v).waited_ns, 0, "it has not waited for a CPU");
    assert!(p.saw(Event::Paused(g)) && p.saw(Event::Resumed(g)));
}

#[test]
fn a_guest_that_is_resumed_before_its_vcpu_has_stopped_goes_on() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 2, 10);
    p.wake(v);
    p.pick(0);
    p.pause(g);
    p.resume(g);
    p.run(0, 10 * US, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((v, v)));
}

#[test]
fn what_it_lends_stops_at_once_and_nobody_waits_in_it() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.kicks();
    p.pause(g);
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.policy.view(waiter).unwrap().waits_for, None);
    assert_eq!(
        p.policy.defer(vcpu_sched::CpuId(0), &holding(), p.now),
        None
    );
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), None);
    p.resume(g);
    assert_eq!(p.pick(0), Some((waiter, waiter)), "it publishes anew");
}

#[test]
fn what_is_parked_leaves_the_list_of_its_holder() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.pick(0);
    p.wake(holder);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.wake(waiter);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), None);
    p.pause(g);
    p.wake(holder);
    assert_eq!(p.pick(0), None);
    p.resume(g);
    assert_eq!(p.pick(0), Some((holder, holder)));
}

#[test]
fn a_budget_neither_accumulates_nor_is_given_twice() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 4, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, MS, StopReason::Preempted, quiet());
    p.pause(g);
    p.now = 2 * MS;
    p.resume(g);
    assert_eq!(
        p.decide(0).unwrap().until,
        Some(5 * MS),
        "3 are left until 10"
    );
    p.run(0, 3 * MS, StopReason::Preempted, quiet());
    p.pause(g);
    p.resume(g);
    assert_eq!(p.pick(0), None, "its budget is used up until 10");
    p.pause(g);
    p.now = 95 * MS;
    assert_eq!(p.pick(0), None);
    p.resume(g);
    assert_eq!(p.decide(0).unwrap().until, Some(99 * MS), "one budget");
    let (_, _, deadline) = p.policy.view(v).unwrap().reserved.unwrap();
    assert_eq!(deadline, 105 * MS);
}

#[test]
fn wake_ups_are_delivered_when_it_is_resumed_and_interrupt_nobody_before() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let [timed, later, woken, quick] = [(); 4].map(|()| p.best_effort(g, 100));
    for (v, at) in [(timed, Some(5 * MS)), (later, Some(50 * MS)), (woken, None)] {
        p.wake(v);
        p.pick(0);
        p.stop(0, StopReason::Halted(at), quiet());
    }
    p.wake(quick);
    p.pick(0);
    p.pause(g);
    p.stop(0, StopReason::Halted(Some(MS)), quiet());
    assert_eq!(p.policy.next_timer(), None);
    p.wake(woken);
    p.now = 10 * MS;
    assert_eq!(p.pick(0), None);
    for v in [timed, later, woken, quick] {
        assert_eq!(p.doing(v), Doing::Paused);
    }
    p.resume(g);
    assert_eq!(p.policy.next_timer(), Some(50 * MS));
    for v in [timed, woken, quick] {
        assert_eq!(p.doing(v), Doing::Runnable, "{v}");
    }
    assert_eq!(p.doing(later), Doing::Halted);
}

#[test]
fn its_workers_stop_and_wait_with_each_policy() {
    for kind in [PolicyKind::Deadline, PolicyKind::RoundRobin] {
        let mut policy = kind.pool(Config::new(1), ());
        let g = policy.add_guest();
        let params = SchedParams::BestEffort { weight: 100 };
        policy.add_vcpu(g, params, None).unwrap();
        let worker = policy.add_worker(g);
        let begins = |orders: Vec<WorkerOrder>| matches!(orders[..], [WorkerOrder::Work(_)]);
        policy.pick(CpuId(0), 0);
        policy.worker_ready(worker, 0);
        assert!(begins(policy.take_worker_orders()), "{kind:?}");
        policy.pause(g, 0);
        assert_eq!(policy.take_worker_orders(), [WorkerOrder::Stop(worker)]);
        policy.worker_stopped(worker, CpuTime(US), US);
        policy.worker_ready(worker, US);
        policy.pick(CpuId(0), US);
        assert_eq!(policy.take_worker_orders(), [], "{kind:?}");
        policy.resume(g, US);
        assert!(begins(policy.take_worker_orders()), "{kind:?}");
    }
}

#[test]
fn a_paused_guest_can_be_removed() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 4, 10);
    p.wake(v);
    p.pick(0);
    p.stop(0, StopReason::Halted(Some(5 * MS)), quiet());
    p.pause(g);
    assert!(p.policy.remove_guest(g, p.now));
    p.resume(g);
    assert_eq!((p.doing(v), p.policy.next_timer()), (Doing::Gone, None));
    assert!(p.policy.reclaim_guest(g, p.now));
}
