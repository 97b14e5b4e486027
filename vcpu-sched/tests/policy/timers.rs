//! Which CPU is interrupted when a timer is due, and which is not.

use crate::pool::{MS, Pool, US, holding, quiet, sleeps_on};
use vcpu_sched::{Reservation, SchedParams, StopReason, VcpuId};

/// A reserved vCPU on CPU 1 of two, `sleepers` best-effort vCPUs that idle until `first`, `first + gap`, and
/// so on, and another one that keeps CPU 0 busy.
fn beside_sleepers(sleepers: u64, first: u64, gap: u64) -> (Pool, VcpuId) {
    let mut p = Pool::new(2);
    let (other, own) = (p.guest(), p.guest());
    let idle: Vec<_> = (0..sleepers).map(|_| p.best_effort(other, 1)).collect();
    let hog = p.best_effort(other, 1);
    let reserved = p.hard_on(own, 45, 50, Some(&[1]));
    for (&vcpu, n) in idle.iter().zip(0..) {
        p.wake(vcpu);
        assert_eq!(p.pick(0), Some((vcpu, vcpu)));
        p.stop(0, StopReason::Halted(Some(first + n * gap)), quiet());
    }
    p.wake(hog);
    assert_eq!(p.pick(0), Some((hog, hog)));
    p.wake(reserved);
    p.kicks();
    (p, reserved)
}

#[test]
fn wake_up_times_of_best_effort_do_not_interrupt_a_reservation() {
    let (mut p, reserved) = beside_sleepers(24, 2 * MS, 80 * US);
    let decision = p.decide(1).unwrap();
    assert_eq!(decision.curr, reserved);
    assert_eq!(decision.until, Some(45 * MS), "the end of its budget");
    assert_eq!(p.kicks(), [0; 0]);
}

#[test]
fn a_wake_up_time_that_is_set_later_does_not_interrupt_a_reservation_either() {
    let (mut p, reserved) = beside_sleepers(0, 0, 0);
    assert_eq!(p.pick(1), Some((reserved, reserved)));
    p.kicks();
    p.run(0, MS, StopReason::Halted(Some(3 * MS)), quiet());
    assert_eq!(p.kicks(), [0; 0]);
    assert_eq!(p.pick(0), None);
    assert_eq!(
        p.policy.next_timer(),
        Some(3 * MS),
        "CPU 0 sleeps until then"
    );
}

#[test]
fn a_wake_up_with_an_earlier_deadline_interrupts_and_one_with_a_later_does_not() {
    for (period, interrupts) in [(8, true), (400, false)] {
        let mut p = Pool::new(1);
        let (g, h) = (p.guest(), p.guest());
        let long = p.hard(g, 20, 40);
        let other = p.hard(h, 1, period);
        p.wake(other);
        assert_eq!(p.pick(0), Some((other, other)));
        p.run(0, MS / 2, StopReason::Halted(Some(10 * MS)), quiet());
        p.wake(long);
        let until = p.decide(0).unwrap().until.unwrap();
        let expected = if interrupts {
            10 * MS
        } else {
            20 * MS + MS / 2
        };
        assert_eq!(until, expected, "period {period}");
    }
}

#[test]
fn a_replenishment_interrupts_what_has_a_later_deadline() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let short = p.hard(g, 1, 10);
    let long = p.hard(g, 20, 40);
    p.wake(short);
    p.wake(long);
    assert_eq!(p.pick(0), Some((short, short)));
    p.run(0, MS, StopReason::Preempted, quiet());
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.curr, decision.until), (long, Some(10 * MS)));
}

#[test]
fn wake_up_times_end_a_slice_of_best_effort_four_times_at_most() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let idle: Vec<_> = (0..24).map(|_| p.best_effort(h, 1)).collect();
    let works = p.best_effort(g, 100);
    for (&vcpu, n) in idle.iter().zip(1..) {
        p.wake(vcpu);
        assert_eq!(p.pick(0), Some((vcpu, vcpu)));
        p.stop(0, StopReason::Halted(Some(n * 50 * US)), quiet());
    }
    p.wake(works);
    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.curr, decision.until),
        (works, Some(MS)),
        "a quarter of 4 ms"
    );
}

#[test]
fn a_best_effort_sleeper_whose_budget_carries_its_holder_is_woken_in_time() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, sleeper) = (p.best_effort(g, 100), p.best_effort(g, 100));
    p.wake(holder);
    assert_eq!(p.pick(0), Some((holder, holder)));
    p.run(0, 8 * MS, StopReason::Preempted, holding());
    p.wake(sleeper);
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    let wakes_at = p.now + 200 * US;
    p.stop(0, StopReason::Halted(Some(wakes_at)), sleeps_on(holder));
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (sleeper, holder));
    assert_eq!(
        decision.until,
        Some(wakes_at),
        "before a quarter of the slice has passed"
    );
}

#[test]
fn a_wake_up_that_no_cpu_had_to_handle_keeps_the_deadline_of_its_time() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let late = p.hard(g, 10, 50);
    let first = p.hard(h, 5, 20);
    p.wake(late);
    assert_eq!(p.pick(0), Some((late, late)));
    p.run(0, MS, StopReason::Halted(Some(60 * MS)), quiet());
    p.now = 58 * MS;
    p.wake(first);
    let until = p.decide(0).unwrap().until;
    assert_eq!(
        until,
        Some(63 * MS),
        "its deadline at 110 cannot matter at 78"
    );
    p.now = 63 * MS;
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((late, late)));
    let (_, budget, deadline) = p.policy.view(late).unwrap().reserved.unwrap();
    assert_eq!((budget, deadline), (10 * MS as i64, 110 * MS));
    assert_eq!(p.counters(late).waited_ns, 3 * MS, "it has waited since 60");
}

#[test]
fn a_timer_of_a_vcpu_that_may_not_have_the_cpu_does_not_interrupt_it() {
    let mut p = Pool::new(2);
    let (g, h) = (p.guest(), p.guest());
    let here = p.hard_on(g, 40, 50, Some(&[1]));
    let params = SchedParams::Reserved(Reservation::hard(MS, 10 * MS).unwrap());
    let elsewhere = p
        .policy
        .add_vcpu(
            h,
            params,
            Some([vcpu_sched::CpuId(0)].into_iter().collect()),
        )
        .unwrap();
    let hog = p.best_effort(h, 1);
    p.wake(elsewhere);
    assert_eq!(p.pick(0), Some((elsewhere, elsewhere)));
    p.run(0, MS, StopReason::Preempted, quiet());
    p.wake(hog);
    p.wake(here);
    let until = p.decide(0).unwrap().until;
    assert_eq!(
        until,
        Some(10 * MS),
        "a CPU that it may have is interrupted"
    );
    assert_eq!(p.decide(1).unwrap().until, Some(41 * MS));
}
