//! CPU time that is spent for a vCPU while it does not run.

use crate::pool::{MS, Pool, US, holding, quiet, spins_on};
use vcpu_sched::{CpuTime, Doing, StopReason, VcpuId};

fn spend(p: &mut Pool, vcpu: VcpuId, spent: u64) {
    p.policy.charge_elsewhere(vcpu, CpuTime(spent), p.now);
}

fn budget(p: &Pool, vcpu: VcpuId) -> i64 {
    p.policy.view(vcpu).unwrap().reserved.unwrap().1
}

#[test]
fn what_is_spent_for_a_halted_vcpu_is_missing_when_it_wakes() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    spend(&mut p, v, 3 * MS);
    p.wake(v);
    assert_eq!(p.decide(0).unwrap().until, Some(2 * MS));
    let c = p.counters(v);
    assert_eq!(
        (c.charged_ns, c.elsewhere_ns, c.runtime_ns),
        (3 * MS, 3 * MS, 0)
    );
}

#[test]
fn a_halted_vcpu_in_debt_is_throttled_until_it_is_paid_off() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    spend(&mut p, v, 12 * MS);
    p.wake(v);
    assert_eq!(p.pick(0), None);
    assert_eq!(p.policy.view(v).unwrap().doing, Doing::Throttled);
    assert_eq!(p.policy.next_timer(), Some(20 * MS), "three budgets");
    p.now = 20 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(budget(&p, v), 3 * MS as i64);
}

#[test]
fn debt_of_long_ago_is_not_forgotten_and_sleep_is_not_charged_twice() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    for _ in 0..100 {
        p.now += 10 * MS;
        spend(&mut p, v, 5 * MS);
    }
    // 500 ms in one second: exactly its reservation, and nothing is left.
    p.wake(v);
    assert_eq!(p.pick(0), None);
    p.now += 10 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
}

#[test]
fn more_debt_keeps_a_throttled_vcpu_waiting_for_longer() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, 5 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.policy.next_timer(), Some(10 * MS));
    spend(&mut p, v, 6 * MS);
    assert_eq!(p.policy.next_timer(), Some(20 * MS));
    p.now = 20 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(budget(&p, v), 4 * MS as i64);
}

#[test]
fn a_vcpu_whose_budget_is_spent_elsewhere_while_it_runs_is_kicked() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.kicks();
    p.pass(2 * MS);
    spend(&mut p, v, MS);
    assert_eq!(p.kicks(), [0; 0], "2 ms are left");
    spend(&mut p, v, 2 * MS);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.policy.view(v).unwrap().doing, Doing::Throttled);
    assert_eq!(budget(&p, v), 0);
}

#[test]
fn a_soft_reservation_goes_behind_for_what_is_spent_elsewhere() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let params = vcpu_sched::SchedParams::Reserved(
        vcpu_sched::Reservation::new(2 * MS, 10 * MS, 10 * MS, vcpu_sched::Exhaustion::Soft)
            .unwrap(),
    );
    let spends = p.policy.add_vcpu(g, params, None).unwrap();
    let other = p.hard(h, 2, 15);
    p.wake(spends);
    p.wake(other);
    spend(&mut p, spends, 2 * MS);
    assert_eq!(p.pick(0), Some((other, other)), "15 ms before 20 ms");
}

#[test]
fn a_waiting_vcpu_loses_its_place_and_a_holder_is_carried_all_the_same() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 2, 20);
    let waiter = p.hard(g, 5, 10);
    p.preempt_holder(holder, 0);
    spend(&mut p, holder, 3 * MS);
    assert_eq!(p.policy.view(holder).unwrap().doing, Doing::Throttled);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    // What is spent for the holder while the waiter carries it is the holder's own debt.
    spend(&mut p, holder, MS);
    p.run(0, US, StopReason::Rang, holding());
    assert_eq!(budget(&p, holder), -2 * MS as i64);
    assert_eq!(p.counters(waiter).elsewhere_ns, 0);
}

#[test]
fn best_effort_is_charged_with_its_place() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let (spends, other) = (p.best_effort(g, 100), p.best_effort(h, 100));
    p.wake(spends);
    p.wake(other);
    spend(&mut p, spends, 40 * MS);
    let mut ran = 0;
    while p.pick(0) == Some((other, other)) {
        ran += 4 * MS;
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    assert_eq!(ran, 40 * MS);
}

#[test]
fn a_best_effort_vcpu_that_runs_and_is_charged_gives_way_before_others() {
    for (is_charged, kicked) in [(false, 1), (true, 0)] {
        let mut p = Pool::new(2);
        let [g, h, i] = [(); 3].map(|()| p.guest());
        let (spends, other) = (p.best_effort(g, 100), p.best_effort(h, 100));
        let reserved = p.hard(i, 1, 10);
        p.wake(spends);
        p.wake(other);
        assert_eq!(p.pick(0), Some((spends, spends)));
        assert_eq!(p.pick(1), Some((other, other)));
        if is_charged {
            spend(&mut p, spends, 40 * MS);
        }
        p.kicks();
        p.wake(reserved);
        assert_eq!(p.kicks(), [kicked], "the least urgent work is done there");
    }
}

#[test]
fn nothing_is_charged_for_a_vcpu_that_is_gone() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.policy.remove(v, 0);
    spend(&mut p, v, 50 * MS);
    assert_eq!(p.policy.next_timer(), None);
    assert_eq!(p.counters(v).elsewhere_ns, 50 * MS, "but it is counted");
    spend(&mut p, VcpuId(7), MS);
}
