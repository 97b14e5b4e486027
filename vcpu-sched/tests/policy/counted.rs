//! What the counters count, and rules of which only a counter or a kick is the witness.

use crate::pool::{LOCK, MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{CpuId, Hints, StopReason, WaitKind};

const CPU: CpuId = CpuId(0);

#[test]
fn time_in_which_a_vcpu_could_run_and_did_not_is_counted_once_it_runs() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (first, second) = (p.hard(g, 2, 10), p.hard(g, 2, 20));
    p.wake(first);
    p.wake(second);
    assert_eq!(p.pick(0), Some((first, first)));
    p.run(0, 2 * MS, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((second, second)));
    assert_eq!(p.counters(second).waited_ns, 2 * MS);
    assert_eq!(p.counters(first).waited_ns, 0);
}

#[test]
fn the_longest_chain_to_a_vcpu_stays_counted_when_a_shorter_one_follows() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.run(0, 5 * MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((holder, holder)));
    assert_eq!(p.counters(holder).longest_chain, 1);
}

#[test]
fn a_vcpu_that_is_stopped_and_goes_on_at_once_was_not_preempted() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, urgent) = (p.hard(g, 5, 100), p.hard(g, 1, 10));
    p.wake(v);
    assert_eq!(p.pick(0), Some((v, v)));
    p.run(0, US, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((v, v)));
    let c = p.counters(v);
    assert_eq!((c.preemptions, c.holder_preemptions, c.switches), (0, 0, 1));
    p.wake(urgent);
    p.run(0, US, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((urgent, urgent)));
    let c = p.counters(v);
    assert_eq!((c.preemptions, c.holder_preemptions, c.switches), (1, 1, 1));
}

#[test]
fn a_cpu_that_has_picked_by_itself_needs_no_signal_any_more() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, urgent) = (p.hard(g, 5, 100), p.hard(g, 1, 10));
    p.wake(v);
    assert_eq!(p.pick(0), Some((v, v)));
    p.wake(urgent);
    p.run(0, US, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((urgent, urgent)));
    assert_eq!(p.kicks(), [0; 0]);
}

#[test]
fn a_ring_in_the_deferral_keeps_the_credit_though_another_lock_is_held() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    p.wake(v);
    for period in 1..4 {
        p.pick(0);
        p.pass(MS);
        let deferral = p.policy.defer(CPU, &holding(), p.now);
        assert!(deferral.is_some(), "period {period}");
        p.run(0, 10 * US, StopReason::Rang, holding());
        p.now = p.policy.next_timer().unwrap();
    }
    assert_eq!(p.counters(v).deferrals_expired, 0);
}

#[test]
fn only_the_overrun_of_a_best_effort_slice_is_debt_of_a_deferral() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (v, other) = (p.best_effort(g, 100), p.best_effort(g, 100));
    p.wake(v);
    p.wake(other);
    assert_eq!(p.pick(0), Some((v, v)));
    p.pass(4 * MS);
    assert!(p.policy.defer(CPU, &holding(), p.now).is_some());
    p.run(0, 30 * US, StopReason::Rang, quiet());
    assert_eq!(p.counters(v).deferral_debt_ns, 30 * US);
}

#[test]
fn a_proxied_vcpu_whose_own_budget_comes_back_with_an_earlier_deadline_is_its_own_donor() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 5), p.hard(g, 9, 20));
    p.wake(holder);
    assert_eq!(p.pick(0), Some((holder, holder)));
    p.run(0, MS, StopReason::Preempted, holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.kicks();

    p.now = 5 * MS;
    assert_eq!(p.pick(1), None, "an idle CPU is the timekeeper");
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((holder, holder)));
}

#[test]
fn a_halt_ends_the_slice_of_a_best_effort_vcpu() {
    let mut p = Pool::new(1);
    let (a, b) = (p.guest(), p.guest());
    let (sleeper, other) = (p.best_effort(a, 100), p.best_effort(b, 100));
    p.wake(sleeper);
    p.wake(other);
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    p.run(0, 3 * MS, StopReason::Halted(None), quiet());
    p.wake(sleeper);
    assert_eq!(p.pick(0), Some((other, other)));
    p.run(0, 4 * MS, StopReason::Preempted, quiet());
    let decision = p.decide(0).unwrap();
    assert_eq!(decision.curr, sleeper);
    assert_eq!(decision.until, Some(p.now + 4 * MS), "a slice of its own");
}

#[test]
fn a_spinners_record_is_not_followed_while_it_sleeps() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.preempt_holder(last, 0);
    p.wake(middle);
    assert_eq!(p.pick(0), Some((middle, middle)));
    p.stop(0, StopReason::Halted(None), spins_on(last));
    p.wake(first);
    assert_eq!(p.pick(0), Some((first, first)));
    p.stop(0, StopReason::Halted(None), sleeps_on(middle));
    assert_eq!(
        p.pick(0),
        Some((last, last)),
        "on its own budget, not on that of the sleeper behind the spinner"
    );
}

#[test]
fn a_waiter_for_a_vcpu_that_is_gone_gets_the_deferral_of_one_whose_wait_is_over() {
    for kind in [WaitKind::Spin, WaitKind::Block] {
        let mut p = Pool::new(2);
        let g = p.guest();
        let (waiter, gone) = (p.hard(g, 1, 10), p.hard(g, 2, 20));
        p.wake(gone);
        assert_eq!(p.pick(1), Some((gone, gone)));
        p.stop(1, StopReason::Ended, quiet());
        p.wake(waiter);
        assert_eq!(p.pick(0), Some((waiter, waiter)));
        p.pass(MS);
        let hints = Hints {
            depth: 1,
            ..crate::pool::waits(kind, gone)
        };
        assert_eq!(hints.wait.unwrap().lock, LOCK);
        assert!(p.policy.defer(CPU, &hints, p.now).is_some());
    }
}
