//! Reservations, weights and CPUs that change while a vCPU exists.

use crate::pool::{MS, Pool, US, holding, quiet, spins_on};
use vcpu_sched::{
    AdmissionError, Config, CpuId, CpuSet, Decision, Event, MAX_PINNINGS, Ns, Reservation,
    SchedParams, Scheduler, StopReason, VcpuId,
};

fn hard(q: u64, p: u64) -> Reservation {
    Reservation::hard(q * MS, p * MS).unwrap()
}

fn only(cpu: u32) -> Option<CpuSet> {
    Some(CpuSet::only(CpuId(cpu)))
}

impl Pool {
    fn set(&mut self, vcpu: VcpuId, q: u64, p: u64) -> Result<(), AdmissionError> {
        self.policy.set_reservation(vcpu, hard(q, p), self.now)
    }

    fn until(&mut self, cpu: u32) -> Option<Ns> {
        self.decide(cpu).and_then(|Decision { until, .. }| until)
    }

    fn reserved(&self, vcpu: VcpuId) -> Option<Reservation> {
        let view = self.policy.view(vcpu).unwrap();
        view.reserved.map(|(reservation, ..)| reservation)
    }
}

#[test]
fn a_reservation_changes_with_the_next_budget_and_the_one_at_hand_is_used_up() {
    for to in [(8, 10), (1, 10), (2, 40)] {
        let mut p = Pool::new(1);
        let g = p.guest();
        let v = p.hard(g, 4, 10);
        p.wake(v);
        assert_eq!(p.until(0), Some(4 * MS));
        p.run(0, MS, StopReason::Preempted, quiet());
        p.set(v, to.0, to.1).unwrap();
        assert_eq!(p.reserved(v), Some(hard(4, 10)));
        let next = p.policy.view(v).unwrap().next_reservation;
        assert_eq!(next, Some(hard(to.0, to.1)));
        assert_eq!(p.until(0), Some(4 * MS), "no more and no less than before");
        p.run(0, 3 * MS, StopReason::Preempted, quiet());
        assert_eq!(p.pick(0), None);
        p.now = 10 * MS;
        assert_eq!(p.until(0), Some((10 + to.0) * MS));
        assert!(p.saw(Event::ReservationChanged(v, hard(to.0, to.1))));
        assert_eq!(p.policy.view(v).unwrap().next_reservation, None);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would_and_nothing_changes() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 4, 10);
    p.hard(g, 5, 10);
    let Err(AdmissionError::NoBandwidth {
        fitting_budget_ns, ..
    }) = p.set(v, 5, 10)
    else {
        panic!("100 % of 95")
    };
    assert!(
        fitting_budget_ns.abs_diff(4_500 * US) < US,
        "{fitting_budget_ns}"
    );
    assert_eq!(p.policy.view(v).unwrap().next_reservation, None);
    let fitting = Reservation::hard(fitting_budget_ns, 10 * MS).unwrap();
    p.policy.set_reservation(v, fitting, 0).unwrap();
}

#[test]
fn bandwidth_that_becomes_free_is_held_until_the_deadline_at_hand() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (large, small) = (p.hard(g, 8, 10), p.hard(g, 1, 10));
    p.wake(large);
    p.pick(0);
    p.pass(MS);
    p.set(large, 1, 10).unwrap();
    assert!(
        p.set(small, 8, 10).is_err(),
        "8 in 10 are in force until 10"
    );
    p.set(large, 8, 10).unwrap();
    p.set(large, 1, 10).unwrap();
    p.now = 9 * MS;
    assert_eq!(p.policy.free_held_bandwidth(p.now), Some(10 * MS));
    assert!(p.set(small, 8, 10).is_err());
    p.now = 10 * MS;
    assert_eq!(p.policy.free_held_bandwidth(p.now), None);
    p.set(small, 8, 10).unwrap();
    assert!(p.set(large, 8, 10).is_err(), "it was given to the other");
}

#[test]
fn what_a_soft_reservation_leaves_is_held_for_one_period_however_often_it_changes() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let soft =
        |q: u64| Reservation::new(q * MS, 10 * MS, 10 * MS, vcpu_sched::Exhaustion::Soft).unwrap();
    let params = SchedParams::Reserved(soft(4));
    let (ahead, other) = (
        p.policy.add_vcpu(g, params, None).unwrap(),
        p.best_effort(g, 1),
    );
    p.wake(ahead);
    p.pick(0);
    p.run(0, 20 * MS, StopReason::Preempted, quiet());
    p.policy.set_reservation(ahead, soft(2), p.now).unwrap();
    assert!(p.set(other, 7, 10).is_err(), "4 in 10 are held");
    p.now = 30 * MS;
    p.policy.set_reservation(ahead, soft(1), p.now).unwrap();
    assert_eq!(p.reserved(ahead), Some(soft(4)), "its deadline is later");
    p.set(other, 7, 10).unwrap();
}

#[test]
fn what_a_removed_vcpu_has_used_in_advance_is_held_until_its_zero_lag_time() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 8, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, 4 * MS, StopReason::Preempted, quiet());
    p.policy.remove(v, p.now);
    assert_eq!(p.policy.free_held_bandwidth(p.now), Some(5 * MS));
    let other = p.best_effort(g, 1);
    assert!(p.set(other, 8, 10).is_err());
    p.now = 5 * MS;
    p.set(other, 8, 10).unwrap();
}

#[test]
fn a_lender_goes_on_lending_while_its_reservation_changes() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.kicks();
    p.set(waiter, 2, 10).unwrap();
    p.set(holder, 2, 100).unwrap();
    assert_eq!(
        p.kicks(),
        [] as [u32; 0],
        "nothing changes before the next budget"
    );
    p.run(0, 5 * MS, StopReason::Preempted, holding());
    assert_eq!(p.counters(waiter).donated_ns, 5 * MS);
    p.now = 10 * MS;
    assert_eq!(p.until(0), Some(12 * MS));
}

#[test]
fn a_parked_vcpu_that_gets_an_earlier_deadline_takes_the_cpu_when_its_wait_ends() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter, other) = (p.hard(g, 2, 100), p.hard(g, 1, 100), p.hard(g, 20, 50));
    p.wake(holder);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), None);
    p.wake(other);
    assert_eq!(p.until(0), Some(20 * MS), "its deadline is the earlier one");
    p.kicks();
    p.set(waiter, 1, 10).unwrap();
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.until(0), Some(p.policy.config().park_ns));
}

#[test]
fn a_best_effort_vcpu_gets_a_reservation_and_a_reserved_one_a_weight() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, other) = (p.best_effort(g, 100), p.best_effort(g, 100));
    p.wake(other);
    p.wake(v);
    p.pick(0);
    p.kicks();
    p.set(v, 2, 10).unwrap();
    assert_eq!(p.kicks(), [0], "it preempts best effort");
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(
        p.decide(0).map(|d| (d.curr, d.until)),
        Some((v, Some(2 * MS)))
    );
    p.kicks();
    p.policy.set_weight(v, 100, p.now).unwrap();
    assert_eq!(p.kicks(), [0], "it stops, for the change");
    p.run(0, 10 * US, StopReason::Preempted, quiet());
    assert_eq!(p.reserved(v), None);
    assert!(p.saw(Event::WeightChanged(v, 100)));
    assert!(p.pick(0).is_some());
    p.stop(0, StopReason::Preempted, quiet());
    p.now = 10 * MS;
    p.set(other, 9, 10).expect("all is free again");
}

#[test]
fn a_throttled_vcpu_that_gets_a_weight_competes_at_once() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 2, 10);
    p.wake(v);
    p.pick(0);
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), None);
    p.kicks();
    p.policy.set_weight(v, 100, p.now).unwrap();
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((v, v)));
    assert_eq!(p.policy.next_timer(), None);
    assert_eq!(p.policy.free_held_bandwidth(p.now), Some(10 * MS));
}

#[test]
fn a_vcpu_leaves_a_cpu_on_which_it_may_no_longer_run() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard(g, 5, 10);
    p.wake(v);
    assert_eq!((p.pick(0), p.pick(1)), (Some((v, v)), None));
    p.kicks();
    p.policy.set_allowed(v, only(1), p.now).unwrap();
    assert_eq!(p.kicks(), [0]);
    p.run(0, MS, StopReason::Preempted, quiet());
    assert!(p.saw(Event::AllowedChanged(v)));
    assert_eq!(p.kicks(), [1]);
    assert_eq!((p.pick(0), p.pick(1)), (None, Some((v, v))));
}

#[test]
fn a_pinning_has_to_have_room_and_what_is_left_behind_is_held() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard_on(g, 6, 10, Some(&[0]));
    let there = p.hard_on(g, 6, 10, Some(&[1]));
    let refused = p.policy.set_allowed(v, only(1), p.now);
    assert!(matches!(refused, Err(AdmissionError::NoBandwidth { .. })));
    assert_eq!(
        p.policy.set_allowed(v, only(7), p.now),
        Err(AdmissionError::NoCpu)
    );
    p.wake(v);
    p.pick(0);
    p.run(0, 6 * MS, StopReason::Preempted, quiet());
    p.policy.set_allowed(v, None, p.now).unwrap();
    let refused = p.policy.set_allowed(there, only(0), p.now);
    assert!(refused.is_err(), "6 of 10 on CPU 0 are used up to 10");
    p.now = 10 * MS;
    p.policy.set_allowed(there, only(0), p.now).unwrap();
}

#[test]
fn a_vcpu_may_go_back_to_the_cpus_that_it_has_just_left() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard_on(g, 6, 10, Some(&[0]));
    p.wake(v);
    p.pick(0);
    p.run(0, MS, StopReason::Preempted, quiet());
    for cpu in [1, 0, 1, 0] {
        p.policy.set_allowed(v, only(cpu), p.now).unwrap();
    }
}

#[test]
fn a_throttled_vcpu_keeps_its_replenishment_on_other_cpus() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.hard_on(g, 2, 10, Some(&[0]));
    p.wake(v);
    p.pick(0);
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    p.policy.set_allowed(v, only(1), p.now).unwrap();
    assert_eq!((p.pick(0), p.pick(1)), (None, None));
    assert_eq!(p.policy.next_timer(), Some(10 * MS));
    p.now = 10 * MS;
    assert_eq!((p.pick(0), p.pick(1)), (None, Some((v, v))));
}

#[test]
fn a_weight_counts_from_the_next_slice_on() {
    let mut p = Pool::new(1);
    let [a, b] = [(); 2].map(|()| {
        let g = p.guest();
        let v = p.best_effort(g, 100);
        p.wake(v);
        v
    });
    let mut slices = [0; 2];
    for slice in 0..60 {
        if slice == 20 {
            p.policy.set_weight(a, 300, p.now).unwrap();
        }
        let (_, curr) = p.pick(0).unwrap();
        slices[usize::from(curr == b)] += u32::from(slice >= 20);
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    assert!(
        slices[0].abs_diff(30) <= 1,
        "three quarters of 40: {slices:?}"
    );
}

#[test]
fn a_pinning_that_comes_late_does_not_keep_its_cpu() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let first = p.best_effort(g, 100);
    p.policy.set_allowed(first, only(0), 0).unwrap();
    p.wake(first);
    for _ in 0..100 {
        p.pick(0);
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    p.policy.cpu_offline(CpuId(1), p.now);
    let other = p.guest();
    let params = SchedParams::BestEffort { weight: 100 };
    let late = CpuSet::first(2);
    let late = p.policy.add_vcpu(other, params, Some(late)).unwrap();
    p.wake(late);
    for _ in 0..10 {
        p.pick(0);
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    let ran = p.counters(late).runtime_ns / MS;
    assert!(ran.abs_diff(20) <= 4, "half of 40 ms: {ran}");
}

#[test]
fn pinnings_that_nobody_has_any_longer_do_not_count() {
    let mut pool = Scheduler::new(Config::new(128));
    let g = pool.add_guest();
    let weight = SchedParams::BestEffort { weight: 1 };
    let v = pool.add_vcpu(g, weight, None).unwrap();
    for now in 0..2 * MAX_PINNINGS as u32 {
        pool.set_allowed(v, only(now % 128), Ns::from(now)).unwrap();
    }
}

#[test]
fn nothing_changes_for_a_vcpu_that_has_ended() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    p.policy.remove(v, 0);
    let ended = Err(AdmissionError::NoVcpu(v));
    assert_eq!(p.set(v, 1, 20), ended);
    assert_eq!(p.policy.set_weight(v, 1, 0), ended);
    assert_eq!(p.policy.set_allowed(v, None, 0), ended);
}

#[test]
fn a_vcpu_that_gives_up_its_reservation_and_takes_it_again_gets_no_second_budget_in_its_period() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 4, 10);
    p.wake(v);
    for period in 0..3 {
        assert_eq!(p.until(0), Some((10 * period + 4) * MS));
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
        for _ in 0..2 {
            p.policy.set_weight(v, 100, p.now).unwrap();
            p.set(v, 4, 10).unwrap();
        }
        assert_eq!(p.pick(0), None);
        p.now = 10 * (period + 1) * MS;
    }
}

#[test]
fn a_soft_reservation_that_is_taken_again_competes_with_its_next_deadline() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let soft = Reservation::soft(4 * MS, 10 * MS).unwrap();
    let v = p
        .policy
        .add_vcpu(g, SchedParams::Reserved(soft), None)
        .unwrap();
    p.now = 100 * MS;
    p.wake(v);
    p.decide(0);
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    p.policy.set_weight(v, 100, p.now).unwrap();
    p.policy.set_reservation(v, soft, p.now).unwrap();
    let view = p.policy.view(v).unwrap();
    assert_eq!(view.reserved, Some((soft, 4 * MS as i64, 115 * MS)));
}

#[test]
fn what_a_vcpu_has_given_up_is_held_until_its_zero_lag_time_also_if_it_takes_less_again() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, other) = (p.hard(g, 8, 10), p.hard(g, 1, 10));
    p.wake(v);
    p.decide(0);
    p.run(0, 8 * MS, StopReason::Preempted, quiet());
    p.policy.set_weight(v, 100, p.now).unwrap();
    p.set(v, 2, 10).unwrap();
    assert!(p.set(other, 6, 10).is_err());
    p.now = 10 * MS;
    p.set(other, 6, 10).unwrap();
}

#[test]
fn a_reservation_that_comes_before_the_loss_of_another_is_in_force_replaces_it_when_the_cpu_stops()
{
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, other) = (p.hard(g, 8, 10), p.hard(g, 1, 10));
    p.wake(v);
    p.decide(0);
    p.now = MS;
    p.policy.set_weight(v, 100, p.now).unwrap();
    // At the 0-lag time of what is left, the bandwidth is that of others.
    p.now = 2 * MS;
    p.set(other, 8, 10).unwrap();
    p.set(v, 1, 10).unwrap();
    p.run(0, MS, StopReason::Preempted, quiet());
    assert_eq!(p.reserved(v), Some(hard(1, 10)));
}
