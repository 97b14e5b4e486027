//! A vCPU can be removed in every state that it can be in, and nothing of it stays.

use crate::pool::{MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{StopReason, VcpuId};

/// A holder that was preempted, and a waiter for it.
fn pair() -> (Pool, VcpuId, VcpuId) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    (p, holder, waiter)
}

/// `gone` can be woken and never runs, and the pool still works.
fn assert_gone(p: &mut Pool, gone: VcpuId) {
    let before = p.counters(gone).runtime_ns;
    p.wake(gone);
    for _ in 0..20 {
        if let Some((donor, curr)) = p.pick(0) {
            assert!(donor != gone && curr != gone, "{gone} is gone");
            p.pass(MS);
            p.stop(0, StopReason::Preempted, quiet());
        } else {
            p.pass(20 * MS);
        }
    }
    assert_eq!(p.counters(gone).runtime_ns, before);
}

#[test]
fn halted() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 1, 10);
    p.policy.remove(v, p.now);
    assert_gone(&mut p, v);
}

#[test]
fn queued() {
    let (mut p, holder, _) = pair();
    p.policy.remove(holder, p.now);
    assert_eq!(p.pick(0), None);
    assert_gone(&mut p, holder);
}

#[test]
fn running() {
    let (mut p, holder, _) = pair();
    p.pick(0);
    p.kicks();
    p.policy.remove(holder, p.now);
    assert_eq!(p.kicks(), [0]);
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(
        p.counters(holder).charged_ns,
        10 * US,
        "it is charged to the end"
    );
    assert_eq!(p.pick(0), None);
    assert_gone(&mut p, holder);
}

#[test]
fn carried() {
    let (mut p, holder, waiter) = pair();
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.policy.remove(holder, p.now);
    assert_eq!(p.kicks(), [0]);
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((waiter, waiter)), "the donor goes on alone");
    p.stop(0, StopReason::Preempted, quiet());
    assert_gone(&mut p, holder);
}

#[test]
fn donor() {
    let (mut p, holder, waiter) = pair();
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.policy.remove(waiter, p.now);
    assert_eq!(p.kicks(), [0]);
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(p.counters(waiter).donated_ns, 10 * US);
    assert_eq!(p.pick(0), Some((holder, holder)), "now on its own budget");
    p.stop(0, StopReason::Preempted, quiet());
    assert_gone(&mut p, waiter);
}

#[test]
fn donor_whose_budget_ends_as_it_goes() {
    let (mut p, holder, waiter) = pair();
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.policy.remove(waiter, p.now);
    p.run(0, 5 * MS, StopReason::Preempted, holding());
    assert_gone(&mut p, waiter);
}

#[test]
fn parked() {
    let (mut p, holder, waiter) = pair();
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), None);
    p.policy.remove(waiter, p.now);
    assert_eq!(p.policy.next_timer(), None);
    p.wake(holder);
    assert_eq!(p.pick(0), Some((holder, holder)));
    p.stop(0, StopReason::Preempted, quiet());
    assert_gone(&mut p, waiter);
}

#[test]
fn holder_behind_whom_others_are_parked() {
    let (mut p, holder, waiter) = pair();
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.wake(waiter);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), None);
    p.policy.remove(holder, p.now);
    assert_eq!(p.pick(0), None, "a sleeper sleeps on until it is woken");
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.stop(0, StopReason::Preempted, quiet());
    assert_gone(&mut p, holder);
}

#[test]
fn throttled() {
    let (mut p, holder, _) = pair();
    p.pick(0);
    p.run(0, MS, StopReason::Preempted, holding());
    p.policy.remove(holder, p.now);
    assert_eq!(p.policy.next_timer(), None);
    assert_gone(&mut p, holder);
}

#[test]
fn guest_that_ends_by_itself() {
    let (mut p, holder, waiter) = pair();
    p.pick(0);
    p.run(0, 10 * US, StopReason::Ended, quiet());
    assert_eq!(p.pick(0), None);
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.stop(0, StopReason::Preempted, quiet());
    assert_gone(&mut p, holder);
}

#[test]
fn vcpu_that_does_not_exist() {
    let (mut p, ..) = pair();
    p.policy.remove(VcpuId(1_000), p.now);
    p.policy.wake(VcpuId(1_000), p.now);
    assert_eq!(p.counters(VcpuId(1_000)), vcpu_sched::Counters::default());
}
