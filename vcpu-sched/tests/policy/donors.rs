//! Several waiters for one holder, and its release.

use crate::pool::{LOCK, MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{Hints, StopReason, VcpuId};

/// A preempted holder, and two donors that ring for it, the second the more urgent.
fn two_donors() -> (Pool, VcpuId, VcpuId, VcpuId) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (later, earlier) = (p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(holder, 0);
    p.ring(later, 0, spins_on(holder));
    p.ring(earlier, 0, spins_on(holder));
    (p, holder, later, earlier)
}

#[test]
fn the_earliest_deadline_is_charged_first_and_the_next_when_its_budget_ends() {
    let (mut p, holder, later, earlier) = two_donors();
    assert_eq!(p.pick(0), Some((earlier, holder)));
    p.run(0, 2 * MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((later, holder)));
    p.run(0, 5 * MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((holder, holder)), "last its own");
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.counters(holder).received_ns, 7 * MS);
}

#[test]
fn on_release_the_donor_gets_its_cpu_back_at_once() {
    let (mut p, holder, later, earlier) = two_donors();
    assert_eq!(p.pick(0), Some((earlier, holder)));
    p.pass(50 * US);
    p.release(0, None);
    p.stop(0, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((earlier, earlier)));
    // The other donor does not carry it any longer either.
    p.run(0, 10 * US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((later, later)));
}

#[test]
fn release_with_a_successor_passes_the_edges_on() {
    let (mut p, holder, later, earlier) = two_donors();
    assert_eq!(p.pick(0), Some((earlier, holder)));
    p.pass(50 * US);
    // A fair lock: the waiter that came first has it now, though it is less urgent.
    p.release(0, Some(later));
    p.stop(0, StopReason::Rang, quiet());
    assert_eq!(
        p.pick(0),
        Some((earlier, later)),
        "the successor is carried"
    );
    p.pass(50 * US);
    p.release(0, Some(earlier));
    p.stop(0, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((earlier, earlier)));
}

#[test]
fn release_of_one_lock_leaves_the_waiters_of_another() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, other, donor) = (p.hard(g, 1, 100), p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(holder, 0);
    let mut second_lock = spins_on(holder);
    second_lock.wait.as_mut().unwrap().lock = LOCK + 64;
    p.ring(other, 0, second_lock);
    p.ring(donor, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((donor, holder)));
    p.release(0, None);
    p.stop(0, StopReason::Rang, holding());
    assert_eq!(p.pick(0), Some((donor, donor)));
    p.run(0, 10 * US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((other, holder)));
}

#[test]
fn end_of_a_chain_that_releases_leaves_the_rest_of_the_chain() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.preempt_holder(last, 0);
    let mut inner = spins_on(last);
    inner.wait.as_mut().unwrap().lock = LOCK + 64;
    inner.depth = 1;
    p.ring(middle, 0, inner);
    p.ring(first, 0, spins_on(middle));
    assert_eq!(p.decide(0).unwrap().lock, LOCK + 64);
    p.release(0, None);
    p.stop(0, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((first, middle)));
}

#[test]
fn donor_that_wakes_while_it_carries_gets_its_cpu_back() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.wake(waiter);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)), "a sleeper donates too");
    p.kicks();

    // The sleeper gets an interrupt.
    p.pass(10 * US);
    p.wake(waiter);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn budget_of_a_sleeper_that_ends_hands_over_to_the_next_donor() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (sleeper, spinner) = (p.hard(g, 2, 10), p.hard(g, 5, 20));
    p.preempt_holder(holder, 0);
    p.ring(spinner, 0, spins_on(holder));
    p.wake(sleeper);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), Some((sleeper, holder)));
    p.run(0, 2 * MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((spinner, holder)));
}

#[test]
fn carried_vcpu_that_is_itself_a_donor_elsewhere_is_charged_to_each_donor_apart() {
    // The second vCPU carries the first on CPU 0, and the third carries the second on CPU 1.
    let mut p = Pool::new(2);
    let g = p.guest();
    let (first, second, third) = (p.hard(g, 1, 100), p.hard(g, 5, 20), p.hard(g, 5, 10));
    p.preempt_holder(first, 0);
    p.ring(second, 0, spins_on(first));
    assert_eq!(p.pick(0), Some((second, first)));
    p.ring(third, 1, spins_on(second));
    assert_eq!(p.pick(1), Some((third, second)), "it spins, in its turn");
    p.pass(MS);
    p.stop(0, StopReason::Preempted, holding());
    p.stop(1, StopReason::Preempted, Hints::default());
    assert_eq!(p.counters(second).donated_ns, MS);
    assert_eq!(p.counters(third).donated_ns, MS);
    assert_eq!(p.counters(first).received_ns, MS);
    assert_eq!(p.counters(second).received_ns, MS);
}
