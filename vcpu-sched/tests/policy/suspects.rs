//! A vCPU that spins for a holder that is not known, by the host's guess.

use crate::pool::{MS, Pool, US, holding};
use vcpu_sched::{Hints, StopReason, VcpuId};

/// The host's guess that a vCPU holds a lock.
fn holds() -> Hints {
    Hints {
        is_guess: true,
        ..holding()
    }
}

/// The host's guess that a vCPU spins.
fn spins() -> Hints {
    Hints {
        waits: true,
        ..holds()
    }
}

/// The host's guess that a vCPU has released its locks.
fn free() -> Hints {
    Hints {
        depth: 0,
        releases: 1,
        ..holds()
    }
}

/// vCPUs that stopped a moment after each other with these hints, the last one the earliest deadline.
fn stopped(hints: &[Hints]) -> (Pool, Vec<VcpuId>) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let mut vcpus = Vec::new();
    for (period, &hints) in (10..=20).rev().zip(hints) {
        let vcpu = p.hard(g, 1, period);
        p.wake(vcpu);
        assert_eq!(p.pick(0), Some((vcpu, vcpu)), "it is the earliest");
        p.run(0, US, StopReason::Preempted, hints);
        vcpus.push(vcpu);
    }
    (p, vcpus)
}

#[test]
fn the_vcpu_that_holds_something_is_carried_until_it_holds_nothing() {
    let (mut p, v) = stopped(&[free(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[1])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    assert_eq!(p.pick(0), Some((v[2], v[2])));
}

#[test]
fn a_count_that_never_returns_to_zero_keeps_no_waiter_from_running() {
    let (mut p, v) = stopped(&[holds(), spins()]);
    for _ in 0..3 {
        assert_eq!(p.pick(0), Some((v[1], v[0])));
        p.run(0, 20 * US, StopReason::Preempted, holds());
        assert_eq!(p.pick(0), Some((v[1], v[1])));
        p.run(0, 20 * US, StopReason::Preempted, spins());
    }
}

#[test]
fn of_two_suspects_the_one_that_was_stopped_first_comes_first() {
    let (mut p, v) = stopped(&[holds(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[0])));
    p.run(0, 20 * US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((v[2], v[1])), "the first was the wrong one");
}

#[test]
fn vcpus_that_all_spin_are_tried_in_turn_and_the_waiter_after_them() {
    let (mut p, v) = stopped(&[spins(), spins(), spins()]);
    for expected in [v[0], v[1], v[2], v[0], v[1], v[2]] {
        assert_eq!(p.pick(0), Some((v[2], expected)));
        p.run(0, 20 * US, StopReason::Preempted, spins());
    }
}

#[test]
fn no_vcpu_is_suspected_by_what_it_published_itself() {
    let (mut p, v) = stopped(&[holding(), spins()]);
    assert_eq!(p.pick(0), Some((v[1], v[1])));
}

#[test]
fn no_vcpu_of_another_guest_is_suspected() {
    let (mut p, _) = stopped(&[holds()]);
    let other = p.guest();
    let waiter = p.hard(other, 1, 5);
    p.wake(waiter);
    p.pick(0);
    p.run(0, US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn a_suspect_runs_on_the_budget_of_its_waiter_only() {
    let (mut p, v) = stopped(&[holds(), spins()]);
    let before = p.counters(v[0]).charged_ns;
    assert_eq!(p.pick(0), Some((v[1], v[0])));
    p.run(0, MS / 2, StopReason::Preempted, free());
    assert_eq!(p.counters(v[0]).charged_ns, before);
    assert_eq!(p.counters(v[1]).charged_ns, US + MS / 2);
}
