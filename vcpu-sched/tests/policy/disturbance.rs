//! Wake-ups of halted vCPUs on CPUs with a more urgent donor.

use crate::pool::{MS, Pool, US};
use vcpu_sched::{CpuId, CpuTime, VcpuId};

/// A reserved vCPU runs on CPU 0. The other vCPUs are of another guest, and halted.
fn beside_a_reservation() -> (Pool, vcpu_sched::GuestId) {
    let mut p = Pool::new(2);
    let (own, other) = (p.guest(), p.guest());
    let reserved = p.hard_on(own, 45, 50, Some(&[0]));
    p.wake(reserved);
    assert_eq!(p.pick(0), Some((reserved, reserved)));
    (p, other)
}

/// The thread of `vcpu` wakes on `cpu` and uses `spent` ns there.
fn wakes_on(p: &mut Pool, vcpu: VcpuId, cpu: u32, spent: u64) {
    p.policy
        .charge_sleep(vcpu, CpuTime(spent), Some(CpuId(cpu)), p.now);
}

#[test]
fn a_guest_that_disturbs_a_reservation_for_long_may_not_sleep_in_the_hypervisor_for_a_while() {
    let (mut p, other) = beside_a_reservation();
    let halted = p.best_effort(other, 100);
    p.now = MS;
    wakes_on(&mut p, halted, 0, 400 * US);
    assert_eq!(
        p.policy.may_sleep(halted, p.now),
        Ok(()),
        "a little is allowed"
    );
    wakes_on(&mut p, halted, 0, 400 * US);
    assert_eq!(p.counters(halted).disturbing_ns, 800 * US);
    let again = p.policy.may_sleep(halted, p.now).unwrap_err();
    assert!(again > p.now, "it is to be woken later");
    p.now = 400 * MS;
    assert_eq!(p.policy.may_sleep(halted, p.now), Ok(()));
}

#[test]
fn wake_ups_that_take_nothing_from_anybody_more_urgent_are_as_many_as_one_likes() {
    let (mut p, other) = beside_a_reservation();
    let (halted, hog) = (p.best_effort(other, 100), p.best_effort(other, 100));
    for _ in 0..100 {
        wakes_on(&mut p, halted, 1, MS);
    }
    p.wake(hog);
    assert_eq!(p.pick(1), Some((hog, hog)));
    for _ in 0..100 {
        wakes_on(&mut p, halted, 1, MS);
        p.policy.charge_sleep(halted, CpuTime(MS), None, p.now);
    }
    let c = p.counters(halted);
    assert_eq!((c.sleep_ns, c.disturbing_ns), (300 * MS, 0));
    assert_eq!(p.policy.may_sleep(halted, p.now), Ok(()));
}

#[test]
fn a_guest_that_takes_time_from_its_own_reservation_disturbs_nobody() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (reserved, halted) = (p.hard(g, 45, 50), p.best_effort(g, 100));
    p.wake(reserved);
    assert_eq!(p.pick(0), Some((reserved, reserved)));
    wakes_on(&mut p, halted, 0, 2 * MS);
    assert_eq!(p.counters(halted).disturbing_ns, 0);
    assert_eq!(p.policy.may_sleep(halted, p.now), Ok(()));
}

#[test]
fn a_vcpu_without_credit_is_woken_after_1_ms_at_the_earliest_and_16_ms_at_the_latest() {
    let (mut p, other) = beside_a_reservation();
    let halted = p.best_effort(other, 100);
    wakes_on(&mut p, halted, 0, 500 * US);
    assert_eq!(p.policy.may_sleep(halted, p.now), Err(MS));
    wakes_on(&mut p, halted, 0, 400 * MS);
    assert_eq!(p.policy.may_sleep(halted, p.now), Err(16 * MS));
}

#[test]
fn a_reservation_may_wake_where_its_deadline_is_earlier_and_not_where_it_is_later() {
    for (period, disturbs) in [(10, false), (1000, true)] {
        let (mut p, other) = beside_a_reservation();
        // Its last deadline was long ago. What counts is the deadline that it gets when it wakes.
        let halted = p.hard(other, 1, period);
        p.now = MS;
        wakes_on(&mut p, halted, 0, 100 * US);
        let disturbing = p.counters(halted).disturbing_ns > 0;
        assert_eq!(disturbing, disturbs, "period {period}");
    }
}

#[test]
fn one_without_budget_disturbs_whatever_its_deadline_is() {
    let (mut p, other) = beside_a_reservation();
    let halted = p.hard(other, 1, 10);
    p.policy.charge_elsewhere(halted, CpuTime(3 * MS), p.now);
    wakes_on(&mut p, halted, 0, 100 * US);
    assert_eq!(p.counters(halted).disturbing_ns, 100 * US);
}
