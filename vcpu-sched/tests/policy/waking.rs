//! Halting and waking: nothing that is awake is lost, nothing that sleeps runs.

use crate::pool::{MS, Pool, US, quiet};
use vcpu_sched::{Exhaustion, Reservation, SchedParams, StopReason};

#[test]
fn halted_vcpu_does_not_run_until_it_is_woken() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    assert_eq!(p.pick(0), None, "a new vCPU is halted");
    p.wake(v);
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((v, v)));
    p.run(0, US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
}

#[test]
fn wake_that_overtakes_the_halt_is_not_lost() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.wake(v);
    p.run(0, US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((v, v)));
    p.run(0, US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None, "one wake-up, one return");
}

#[test]
fn wake_of_a_preempted_vcpu_makes_its_next_halt_return() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.stop(0, StopReason::Preempted, quiet());
    p.wake(v);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((v, v)));
}

#[test]
fn vcpu_that_halts_with_a_time_wakes_then() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.stop(0, StopReason::Halted(Some(3 * MS)), quiet());
    assert_eq!(p.pick(0), None);
    assert_eq!(p.policy.next_timer(), Some(3 * MS));
    p.now = 3 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(p.policy.next_timer(), None);
}

#[test]
fn early_wake_takes_the_timer_away() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    p.pick(0);
    p.stop(0, StopReason::Halted(Some(3 * MS)), quiet());
    p.pick(0);
    p.wake(v);
    assert_eq!(p.policy.next_timer(), None);
}

#[test]
fn woken_vcpu_takes_the_idle_cpu_where_it_ran_last() {
    let mut p = Pool::new(3);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    assert_eq!(p.pick(2), Some((v, v)));
    p.stop(2, StopReason::Halted(None), quiet());
    for cpu in 0..3 {
        assert_eq!(p.pick(cpu), None);
    }
    p.kicks();
    p.wake(v);
    assert_eq!(p.kicks(), [2]);
}

#[test]
fn only_a_run_on_another_cpu_than_the_last_is_a_migration() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    for (cpu, migrations) in [(1, 0), (1, 0), (0, 1), (1, 2)] {
        assert_eq!(p.pick(cpu), Some((v, v)));
        assert_eq!(p.counters(v).migrations, migrations);
        p.stop(cpu, StopReason::Rang, quiet());
    }
}

#[test]
fn woken_vcpu_kicks_the_cpu_with_the_latest_deadline_if_its_own_is_earlier() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (a, b) = (p.hard(g, 5, 20), p.hard(g, 5, 50));
    p.wake(a);
    p.pick(0);
    p.wake(b);
    p.pick(1);
    p.kicks();
    let (urgent, lax) = (p.hard(g, 1, 10), p.hard(g, 1, 60));
    p.wake(lax);
    assert_eq!(p.kicks(), []);
    p.wake(urgent);
    assert_eq!(p.kicks(), [1]);
}

#[test]
fn throttled_vcpu_that_wakes_waits_for_its_budget() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, MS, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
    p.wake(v);
    assert_eq!(p.pick(0), None);
    p.now = 10 * MS;
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(p.counters(v).throttled_ns, 9 * MS);
}

#[test]
fn sleeper_does_not_save_budget_up() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 2, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, MS, StopReason::Halted(None), quiet());
    p.pick(0);
    p.now = 95 * MS;
    p.wake(v);
    assert_eq!(
        p.decide(0).unwrap().until,
        Some(97 * MS),
        "one budget, fresh"
    );
}

#[test]
fn soft_reservation_that_overruns_goes_on_behind_those_with_earlier_deadlines() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let soft = SchedParams::Reserved(Reservation::soft(2 * MS, 10 * MS).unwrap());
    let soft = p.policy.add_vcpu(g, soft, None).unwrap();
    let other = p.hard(g, 2, 15);
    p.wake(soft);
    p.wake(other);
    assert_eq!(p.pick(0), Some((soft, soft)));
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    assert_eq!(
        p.pick(0),
        Some((other, other)),
        "postponed from 10 to 20 ms"
    );
    p.run(0, MS, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((soft, soft)), "and not throttled");
}

#[test]
fn deadline_before_the_end_of_the_period_is_the_order() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let constrained = Reservation::new(MS, 100 * MS, 5 * MS, Exhaustion::Hard).unwrap();
    let constrained = p
        .policy
        .add_vcpu(g, SchedParams::Reserved(constrained), None);
    let constrained = constrained.unwrap();
    let other = p.hard(g, 1, 10);
    p.wake(other);
    p.wake(constrained);
    assert_eq!(p.pick(0), Some((constrained, constrained)));
}

#[test]
fn equal_deadlines_are_served_first_come_first_served() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let all: Vec<_> = (0..4).map(|_| p.hard(g, 1, 10)).collect();
    for &v in all.iter().rev() {
        p.wake(v);
    }
    for &v in all.iter().rev() {
        assert_eq!(p.pick(0), Some((v, v)));
        p.stop(0, StopReason::Halted(None), quiet());
    }
}
