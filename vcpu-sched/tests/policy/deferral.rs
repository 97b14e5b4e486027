//! The deferral of a holder that is out of time.

use crate::pool::{MS, Pool, US, holding, quiet, spins_on};
use vcpu_sched::{Config, CpuId, Hints, StopReason, VcpuId};

const CPU: CpuId = CpuId(0);

/// A vCPU that has used up its budget at this moment and has not been stopped yet.
fn out_of_time() -> (Pool, VcpuId) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    p.wake(v);
    p.pick(0);
    p.pass(MS);
    (p, v)
}

#[test]
fn holder_gets_one_deferral_and_no_second() {
    let (mut p, v) = out_of_time();
    let deferral = p.policy.defer(CPU, &holding(), p.now);
    assert_eq!(deferral, Some(p.now + 50 * US));
    assert_eq!(p.policy.defer(CPU, &holding(), p.now + 10), None);
    assert_eq!(p.counters(v).deferrals, 1);
}

#[test]
fn no_deferral_without_a_lock() {
    let (mut p, _) = out_of_time();
    assert_eq!(p.policy.defer(CPU, &quiet(), p.now), None);
}

#[test]
fn no_deferral_when_it_is_switched_off_or_nothing_runs() {
    let mut p = Pool::with(Config {
        defer_ns: None,
        ..Config::new(1)
    });
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    assert_eq!(p.policy.defer(CPU, &holding(), p.now), None);
    p.wake(v);
    p.pick(0);
    assert_eq!(p.policy.defer(CPU, &holding(), p.now), None);
    assert_eq!(p.policy.defer(CpuId(99), &holding(), p.now), None);
}

#[test]
fn no_deferral_for_a_vcpu_that_is_being_removed() {
    let (mut p, v) = out_of_time();
    p.policy.remove(v, p.now);
    assert_eq!(p.policy.defer(CPU, &holding(), p.now), None);
}

#[test]
fn overrun_is_debt_of_the_next_budget() {
    let (mut p, v) = out_of_time();
    p.policy.defer(CPU, &holding(), p.now);
    p.run(0, 30 * US, StopReason::Rang, quiet());
    assert_eq!(p.counters(v).deferral_debt_ns, 30 * US);
    assert_eq!(p.counters(v).charged_ns, MS + 30 * US);
    p.now = 10 * MS;
    let until = p.decide(0).unwrap().until.unwrap();
    assert_eq!(until - p.now, MS - 30 * US);
}

#[test]
fn deferral_that_runs_out_costs_the_next_one() {
    let (mut p, v) = out_of_time();
    p.policy.defer(CPU, &holding(), p.now);
    p.run(0, 50 * US, StopReason::Preempted, holding());
    assert_eq!(p.counters(v).deferrals_expired, 1);

    let mut request = |expect: bool| {
        p.now = p.policy.next_timer().unwrap();
        p.pick(0);
        p.pass(MS);
        assert_eq!(p.policy.defer(CPU, &holding(), p.now).is_some(), expect);
        p.run(0, 10 * US, StopReason::Rang, quiet());
    };
    request(false);
    request(true);
    request(true);
}

/// The host's guess that a vCPU holds a lock.
fn guessed() -> Hints {
    Hints {
        is_guess: true,
        ..holding()
    }
}

/// The host's guess that a vCPU spins for a holder that is not known.
fn spins() -> Hints {
    Hints {
        waits: true,
        ..guessed()
    }
}

#[test]
fn deferrals_on_guesses_that_never_pay_are_withdrawn_and_tried_again_later() {
    let (mut p, v) = out_of_time();
    let mut granted = Vec::new();
    for request in 0..200 {
        if p.policy.defer(CPU, &guessed(), p.now).is_some() {
            granted.push(request);
        }
        next_time(&mut p, guessed());
    }
    assert_eq!(granted, [0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 25, 42, 75, 140]);
    assert_eq!(p.counters(v).deferrals_expired, 14);
}

#[test]
fn deferrals_on_guesses_that_pay_every_second_time_are_all_granted() {
    let (mut p, v) = out_of_time();
    for request in 0..200 {
        assert!(p.policy.defer(CPU, &guessed(), p.now).is_some());
        let free = Hints {
            depth: 0,
            ..guessed()
        };
        next_time(&mut p, if request % 2 == 0 { free } else { guessed() });
    }
    assert_eq!(p.counters(v).deferrals_expired, 100);
}

#[test]
fn a_deferral_that_runs_out_costs_the_next_one_of_the_same_grounds_whatever_the_hints_are_then() {
    let (mut p, _) = out_of_time();
    assert!(p.policy.defer(CPU, &holding(), p.now).is_some());
    next_time(&mut p, guessed());
    assert_eq!(p.policy.defer(CPU, &holding(), p.now), None);
    assert!(p.policy.defer(CPU, &guessed(), p.now).is_some());
    next_time(&mut p, holding());
    assert!(p.policy.defer(CPU, &holding(), p.now).is_some());
}

#[test]
fn a_guess_defers_no_preemption_by_a_kick_and_a_published_hint_does() {
    for (hints, is_deferred) in [(guessed(), false), (holding(), true)] {
        let mut p = Pool::new(1);
        let guest = p.guest();
        let (holder, woken) = (p.hard(guest, 5, 10), p.hard(guest, 1, 5));
        p.wake(holder);
        p.pick(0);
        p.pass(US);
        p.wake(woken);
        assert_eq!(p.kicks(), [0]);
        let deferred = p.policy.defer(CPU, &hints, p.now);
        assert_eq!(deferred.is_some(), is_deferred, "{hints:?}");
    }
}

/// The vCPU runs on until it is stopped with `hints`, and uses up its next budget.
fn next_time(p: &mut Pool, hints: Hints) {
    p.run(0, 50 * US, StopReason::Preempted, hints);
    p.now = p.policy.next_timer().unwrap();
    p.pick(0);
    p.pass(MS);
}

#[test]
fn a_vcpu_that_spins_for_an_unknown_holder_earns_neither_a_deferral_nor_a_denial() {
    let (mut p, v) = out_of_time();
    for _ in 0..7 {
        p.policy.defer(CPU, &guessed(), p.now);
        next_time(&mut p, guessed());
    }
    // One denial is left, which these requests must not use up.
    for _ in 0..3 {
        assert_eq!(p.policy.defer(CPU, &spins(), p.now), None);
    }
    assert_eq!(p.policy.defer(CPU, &guessed(), p.now), None);
    assert!(p.policy.defer(CPU, &guessed(), p.now).is_some());
    p.run(0, 50 * US, StopReason::Preempted, spins());
    assert_eq!(p.counters(v).deferrals_expired, 7, "not the last");
}

#[test]
fn a_vcpu_that_only_spins_is_no_preempted_holder() {
    let (mut p, v) = out_of_time();
    let other = p.guest();
    let other = p.hard(other, 1, 5);
    p.wake(other);
    p.stop(0, StopReason::Preempted, spins());
    p.pick(0);
    assert_eq!(p.counters(v).holder_preemptions, 0);
}

/// A vCPU out of time on CPU 0, which takes a lock and spins for a sibling on CPU 1.
fn waiter_out_of_time() -> (Pool, VcpuId, VcpuId) {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (waiter, holder) = (p.hard(g, 1, 10), p.hard(g, 2, 20));
    for (cpu, vcpu) in [(0, waiter), (1, holder)] {
        p.wake(vcpu);
        assert_eq!(p.pick(cpu), Some((vcpu, vcpu)));
    }
    p.pass(MS);
    (p, waiter, holder)
}

fn taking(holder: VcpuId) -> Hints {
    Hints {
        depth: 1,
        ..spins_on(holder)
    }
}

#[test]
fn waiter_whose_holder_runs_gets_a_deferral() {
    let (mut p, _, holder) = waiter_out_of_time();
    let deferral = p.policy.defer(CPU, &taking(holder), p.now);
    assert_eq!(deferral, Some(p.now + 50 * US));
}

#[test]
fn waiter_whose_holder_was_stopped_gets_none() {
    let (mut p, _, holder) = waiter_out_of_time();
    p.stop(1, StopReason::Preempted, holding());
    assert_eq!(p.policy.defer(CPU, &taking(holder), p.now), None);
}

#[test]
fn waiter_whose_holder_let_go_before_it_was_stopped_gets_a_deferral() {
    let (mut p, _, holder) = waiter_out_of_time();
    let released = Hints {
        releases: 1,
        ..quiet()
    };
    p.stop(1, StopReason::Preempted, released);
    assert!(p.policy.defer(CPU, &taking(holder), p.now).is_some());
}

#[test]
fn waiter_that_names_a_vcpu_that_does_not_exist_does_no_harm() {
    let (mut p, ..) = waiter_out_of_time();
    assert!(p.policy.defer(CPU, &taking(VcpuId(99)), p.now).is_some());
}

#[test]
fn preempted_waiter_is_no_preempted_holder() {
    let (mut p, waiter, holder) = waiter_out_of_time();
    p.stop(0, StopReason::Preempted, taking(holder));
    p.pick(0);
    assert_eq!(p.counters(waiter).holder_preemptions, 0);

    let (mut p, waiter, _) = waiter_out_of_time();
    let other = p.guest();
    let other = p.hard(other, 1, 5);
    p.wake(other);
    p.stop(0, StopReason::Preempted, holding());
    p.pick(0);
    assert_eq!(p.counters(waiter).holder_preemptions, 1);
}

#[test]
fn a_vcpu_that_spins_by_a_guess_is_deferred_only_if_all_that_it_may_wait_for_run() {
    let spins = Hints {
        waits: true,
        ..guessed()
    };
    let mut p = Pool::new(2);
    let g = p.guest();
    let v: Vec<_> = [10, 12, 11].map(|period| p.hard(g, 1, period)).into();
    p.wake(v[0]);
    p.pick(0);
    assert_eq!(p.policy.defer(CPU, &spins, p.now), None, "no other runs");
    p.wake(v[1]);
    p.pick(1);
    p.run(1, US, StopReason::Preempted, guessed());
    p.wake(v[2]);
    assert_eq!(p.pick(1), Some((v[2], v[2])));
    assert_eq!(p.policy.defer(CPU, &spins, p.now), None, "a holder is off");
    p.run(1, US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(1), Some((v[1], v[1])));
    assert!(p.policy.defer(CPU, &spins, p.now).is_some());
}
