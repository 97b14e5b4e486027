//! Guests come and go, and their names are used again.

use crate::pool::{MS, Pool, US, holding, quiet, spins_on};
use vcpu_sched::{
    Config, Counters, CpuId, CpuTime, Event, GuestId, MAX_PINNINGS, Policy, PolicyKind,
    Reservation, SchedParams, StopReason, VcpuId, WorkerId,
};

#[test]
fn no_name_is_free_while_a_cpu_runs_the_guest_or_its_owner_may_use_it() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    assert!(!p.policy.reclaim_guest(g, p.now), "it has not been removed");
    p.kicks();
    assert!(p.policy.remove_guest(g, p.now));
    assert!(!p.policy.remove_guest(g, p.now), "it is removed once");
    assert_eq!(p.kicks(), [0]);
    assert!(!p.policy.reclaim_guest(g, p.now), "a CPU runs it");
    let other = p.guest();
    assert_ne!(other, g);
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(
        p.counters(waiter).donated_ns,
        10 * US,
        "until it is reclaimed"
    );
    assert_eq!(p.best_effort(other, 1), VcpuId(2));
    assert!(p.policy.reclaim_guest(g, p.now));
    assert!(!p.policy.reclaim_guest(g, p.now), "there is no such guest");
    assert!(p.saw(Event::GuestRemoved(g)) && p.saw(Event::GuestReclaimed(g)));
    assert_eq!(p.pick(0), None);
}

#[test]
fn a_name_that_is_free_names_nothing_and_nothing_of_its_past_is_left() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 4, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, 9 * MS, StopReason::Preempted, quiet());
    p.policy.remove_guest(g, p.now);
    assert!(p.policy.reclaim_guest(g, p.now));
    assert_eq!(p.policy.next_timer(), None);
    assert_eq!(p.policy.view(v), None);
    p.wake(v);
    p.policy.charge_elsewhere(v, CpuTime(MS), p.now);
    p.policy.remove(v, p.now);
    assert!(!p.policy.pause(g, p.now) && !p.policy.resume(g, p.now));
    assert_eq!(p.pick(0), None);
    let again = p.guest();
    let new = p.best_effort(again, 1);
    assert_eq!((again, new), (g, v));
    assert_eq!(p.counters(new), Counters::default());
    p.wake(new);
    assert_eq!(p.pick(0), Some((new, new)));
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.counters(new).preemptions, 0, "nor a preemption");
}

#[test]
fn no_name_is_free_while_a_worker_works() {
    let mut p = Pool::new(1);
    let g = p.guest();
    p.best_effort(g, 1);
    let worker = p.policy.add_worker(g);
    p.pick(0);
    p.policy.worker_ready(worker, p.now);
    assert!(p.policy.take_worker_orders().next().is_some());
    p.policy.remove_guest(g, p.now);
    assert!(!p.policy.reclaim_guest(g, p.now));
    p.policy.worker_stopped(worker, CpuTime(US), p.now);
    assert!(p.policy.reclaim_guest(g, p.now));
    assert!(p.policy.take_worker_orders().next().is_none());
    let other = p.guest();
    assert_eq!(p.policy.add_worker(other), worker);
}

#[test]
fn guests_that_were_added_first_keep_their_reservations_whatever_their_names() {
    let mut p = Pool::new(2);
    let first = p.guest();
    let second = p.guest();
    let older = p.hard(second, 8, 10);
    p.policy.remove_guest(first, 0);
    assert!(p.policy.reclaim_guest(first, 0));
    let third = p.guest();
    assert_eq!(third, first);
    let younger = p.hard(third, 8, 10);
    p.policy.cpu_offline(CpuId(1), 0);
    let is_reduced = |v| p.policy.view(v).unwrap().reduced.is_some();
    assert!(!is_reduced(older) && is_reduced(younger));
}

/// One guest after the other, of changing sizes and pinnings, beside one that stays.
fn come_and_go(pool: &mut dyn Policy<()>, rounds: u64, reserved: bool) {
    let stays = pool.add_guest();
    let weight = SchedParams::BestEffort { weight: 100 };
    pool.add_vcpu(stays, weight, None).unwrap();
    for round in 0..rounds {
        let now = round * 20 * MS;
        let guest = pool.add_guest();
        assert_eq!(guest, GuestId(1), "the tables do not grow");
        assert_eq!(pool.add_worker(guest), WorkerId(0));
        for _ in 0..1 + round % 3 {
            // Each of 255 pinnings in turn, of which there are never more than two at a time.
            let bits = 1 + round % 255;
            let cpus = (0..8).filter(|cpu| bits >> cpu & 1 == 1).map(CpuId);
            let params = match reserved && round % 2 == 0 {
                true => SchedParams::Reserved(Reservation::hard(2 * MS, 10 * MS).unwrap()),
                false => weight,
            };
            pool.free_held_bandwidth(now);
            let vcpu = pool.add_vcpu(guest, params, Some(cpus.collect())).unwrap();
            assert!(vcpu < VcpuId(4), "the tables do not grow");
            pool.wake(vcpu, now);
        }
        pool.take_kicks();
        let cpu = CpuId((round % 8) as u32);
        let ran = pool.pick(cpu, now).is_some();
        if ran {
            pool.remove_guest(guest, now + MS);
            let hints = vcpu_sched::Hints::default();
            pool.stop(cpu, StopReason::Preempted, hints, CpuTime(MS), now + MS);
        }
        pool.remove_guest(guest, now + MS);
        assert!(pool.reclaim_guest(guest, now + MS));
        pool.pick(cpu, now + MS);
    }
}

#[test]
fn a_million_guests_that_come_and_go_leave_no_more_rows_than_there_were_at_one_time() {
    const { assert!(MAX_PINNINGS < 255) };
    let rounds = 1_000_000;
    let mut pool = PolicyKind::Deadline.pool(Config::new(8), ());
    come_and_go(&mut *pool, rounds, true);
    let mut pool = PolicyKind::RoundRobin.pool(Config::new(8), ());
    come_and_go(&mut *pool, rounds, false);
}
