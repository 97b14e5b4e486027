//! What is counted of the time in which a vCPU does not run: missed deadlines, and waits.

use crate::pool::{MS, Pool, US, holding, quiet, spins_on};
use vcpu_sched::{CpuTime, Reservation, SchedParams, StopReason, VcpuId};

/// A soft reservation of `q` in every `p` milliseconds in a guest of its own.
fn soft(p: &mut Pool, q: u64, period: u64) -> VcpuId {
    let guest = p.guest();
    let params = SchedParams::Reserved(Reservation::soft(q * MS, period * MS).unwrap());
    p.policy.add_vcpu(guest, params, None).unwrap()
}

#[test]
fn a_budget_that_is_late_by_300_periods_has_missed_300_deadlines() {
    let mut p = Pool::new(1);
    let late = soft(&mut p, 2, 10);
    p.wake(late);
    p.pass(3_005 * MS);
    assert_eq!(p.pick(0), Some((late, late)));
    assert_eq!(p.counters(late).deadline_misses, 300);
    // The late budgets that come now, one after the other, miss no more deadlines ...
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((late, late)));
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.counters(late).deadline_misses, 300);
    // ... except those of periods that get nothing.
    p.pass(12 * MS);
    assert_eq!(p.pick(0), Some((late, late)));
    assert_eq!(p.counters(late).deadline_misses, 301);
}

#[test]
fn deadlines_that_pass_while_the_host_runs_something_else_are_missed() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let robbed = p.hard(guest, 5, 10);
    p.wake(robbed);
    assert_eq!(p.pick(0), Some((robbed, robbed)));
    // The host takes the CPU for 1.2 s. What follows uses up the budget.
    p.pass(1_205 * MS);
    p.policy.stop(
        vcpu_sched::CpuId(0),
        StopReason::Preempted,
        quiet(),
        CpuTime(5 * MS),
        p.now,
    );
    assert_eq!(p.counters(robbed).deadline_misses, 120);
}

#[test]
fn a_budget_that_is_used_up_by_its_deadline_has_missed_nothing_whatever_it_overruns() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let kept = p.hard(guest, 5, 10);
    p.wake(kept);
    p.pass(5 * MS);
    assert_eq!(p.pick(0), Some((kept, kept)));
    p.run(0, 5 * MS + 50 * US, StopReason::Preempted, quiet());
    assert_eq!(p.counters(kept).deadline_misses, 0);
}

#[test]
fn a_vcpu_that_runs_on_anothers_budget_misses_no_deadline_of_its_own() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let holder = p.hard(guest, 2, 20);
    let params = SchedParams::Reserved(Reservation::soft(5 * MS, 10 * MS).unwrap());
    let waiter = p.policy.add_vcpu(guest, params, None).unwrap();
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    // Past its own deadline, which is at 20.
    p.run(0, 30 * MS, StopReason::Preempted, holding());
    assert_eq!(
        p.pick(0),
        Some((holder, holder)),
        "its deadline is the earlier"
    );
    assert_eq!(p.counters(holder).deadline_misses, 0);
}

#[test]
fn a_vcpu_that_starves_for_the_whole_run_has_missed_and_waited_though_it_never_ran() {
    let mut p = Pool::new(1);
    let starved = soft(&mut p, 1, 10);
    p.pass(5 * MS);
    p.wake(starved);
    p.pass(1_000 * MS);
    assert_eq!(
        p.counters(starved).deadline_misses,
        0,
        "no CPU has picked since"
    );
    let at_the_end = p.policy.counters_at(starved, p.now);
    assert_eq!(at_the_end.deadline_misses, 99);
    assert_eq!(at_the_end.waited_ns, 1_000 * MS);
}

#[test]
fn a_wait_for_a_budget_is_no_wait_for_a_cpu() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 1, 100);
    p.wake(vcpu);
    p.pass(3 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), None, "throttled");
    // Halfway, as `baton top` shows it.
    let half = p.policy.counters_at(vcpu, 50 * MS);
    assert_eq!((half.waited_ns, half.throttled_wait_ns), (3 * MS, 46 * MS));
    assert_eq!(half.throttled_ns, 46 * MS);
    // The new budget comes at 100 ms, and the CPU 7 ms later.
    p.pass(96 * MS);
    assert_eq!(p.policy.next_timer(), Some(100 * MS));
    p.pass(7 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    let counted = p.counters(vcpu);
    assert_eq!(counted.waited_ns, 10 * MS);
    assert_eq!(counted.throttled_wait_ns, 96 * MS);
    assert_eq!(counted.throttled_ns, 96 * MS);
}

#[test]
fn a_vcpu_whose_budget_has_come_waits_for_a_cpu_though_no_cpu_has_handled_the_timer() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 1, 100);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, MS, StopReason::Preempted, quiet());
    let late = p.policy.counters_at(vcpu, 107 * MS);
    assert_eq!((late.waited_ns, late.throttled_wait_ns), (7 * MS, 99 * MS));
    assert_eq!(late.throttled_ns, 99 * MS);
}

#[test]
fn a_vcpu_that_wakes_while_it_is_throttled_waits_for_its_budget_from_then_on() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 1, 100);
    p.policy.charge_elsewhere(vcpu, CpuTime(MS), p.now);
    p.pass(40 * MS);
    p.wake(vcpu);
    p.pass(63 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    let counted = p.counters(vcpu);
    assert_eq!(counted.waited_ns, 3 * MS);
    assert_eq!(counted.throttled_wait_ns, 60 * MS);
    assert_eq!(counted.throttled_ns, 100 * MS);
}

#[test]
fn a_vcpu_that_goes_throttled_has_counted_what_it_waited() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 1, 100);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, MS, StopReason::Preempted, quiet());
    p.pass(20 * MS);
    p.policy.remove(vcpu, p.now);
    let counted = p.policy.counters_at(vcpu, p.now + 500 * MS);
    assert_eq!((counted.waited_ns, counted.throttled_wait_ns), (0, 20 * MS));
    assert_eq!(counted.throttled_ns, 20 * MS);
}

#[test]
fn time_that_the_host_took_is_counted_for_the_vcpu_on_the_cpu() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.best_effort(guest, 100);
    p.policy.host_took(vcpu, CpuTime(3 * MS));
    p.policy.host_took(VcpuId(77), CpuTime(3 * MS));
    assert_eq!(p.counters(vcpu).host_steal_ns, 3 * MS);
}
