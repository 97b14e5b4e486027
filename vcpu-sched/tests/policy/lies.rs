//! Edges that make no sense: deadlocks in the guest, and false edges. None may cost more than the walk.

use crate::pool::{MS, Pool, spins_on};
use vcpu_sched::{Hints, MAX_CHAIN, StopReason, VcpuId};

/// `n` vCPUs that wait for each other in a circle. The most urgent is last in the table.
fn ring_of(n: u64) -> (Pool, Vec<VcpuId>) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let all: Vec<_> = (0..n).map(|i| p.hard(g, 1, 100 - i)).collect();
    for i in 0..all.len() {
        let next = all[(i + 1) % all.len()];
        p.ring(all[i], 0, spins_on(next));
    }
    (p, all)
}

#[test]
fn cycles_of_two_and_three_run_their_donor_and_are_counted() {
    for n in [2, 3] {
        let (mut p, all) = ring_of(n);
        let donor = all[all.len() - 1];
        assert_eq!(p.pick(0), Some((donor, donor)));
        assert_eq!(p.counters(donor).cycles, 1);
    }
}

#[test]
fn cycle_beyond_the_donor_is_found_and_its_donor_runs() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (a, b, donor) = (p.hard(g, 1, 100), p.hard(g, 1, 90), p.hard(g, 1, 10));
    p.preempt_holder(a, 0);
    p.ring(b, 0, spins_on(a));
    // b carries a, and a publishes that it waits for b.
    assert_eq!(p.pick(0), Some((b, a)));
    p.stop(0, StopReason::Rang, spins_on(b));
    p.ring(donor, 0, spins_on(a));
    assert_eq!(p.pick(0), Some((donor, donor)));
    assert_eq!(p.counters(donor).cycles, 1);
}

#[test]
fn waiting_for_oneself_is_no_edge() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let liar = p.hard(g, 1, 100);
    p.ring(liar, 0, spins_on(liar));
    assert_eq!(p.pick(0), Some((liar, liar)));
    assert_eq!(p.counters(liar).cycles, 0);
}

#[test]
fn edge_into_another_guest_or_to_no_vcpu_is_ignored() {
    let mut p = Pool::new(1);
    let (g, other) = (p.guest(), p.guest());
    let victim = p.hard(other, 1, 100);
    let liar = p.hard(g, 5, 10);
    p.preempt_holder(victim, 0);
    for target in [victim, VcpuId(77), VcpuId(u32::MAX)] {
        p.ring(liar, 0, spins_on(target));
        assert_eq!(p.pick(0), Some((liar, liar)));
        p.stop(0, StopReason::Preempted, Hints::default());
    }
    assert_eq!(p.counters(victim).received_ns, 0);
}

#[test]
fn successor_in_another_guest_gets_no_edge() {
    let mut p = Pool::new(1);
    let (g, other) = (p.guest(), p.guest());
    let stranger = p.hard(other, 1, 100);
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(stranger, 0);
    p.wake(holder);
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.stop(0, StopReason::Rang, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.release(0, Some(stranger));
    p.stop(0, StopReason::Rang, Hints::default());
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn chain_of_16_edges_is_followed_and_a_longer_one_is_not() {
    assert_eq!(MAX_CHAIN, 16);
    for extra in [0, 1] {
        let mut p = Pool::new(1);
        let g = p.guest();
        let edges = u64::from(MAX_CHAIN) + extra;
        let links: Vec<_> = (0..=edges).map(|i| p.hard(g, 1, 100 - i)).collect();
        p.preempt_holder(links[0], 0);
        for pair in links.windows(2) {
            p.ring(pair[1], 0, spins_on(pair[0]));
        }
        let (first, last) = (links[0], links[links.len() - 1]);
        let expected = if extra == 0 { first } else { last };
        assert_eq!(p.pick(0), Some((last, expected)), "{edges} edges");
        let counters = p.counters(last);
        assert_eq!(counters.long_chains, extra);
        assert_eq!(counters.cycles, 0, "a long queue is no deadlock");
    }
}

#[test]
fn release_by_a_vcpu_that_is_not_carried_does_nothing() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    let urgent = p.hard(g, 1, 5);
    p.wake(urgent);
    assert_eq!(p.pick(0), Some((urgent, urgent)));
    p.release(0, None);
    p.run(0, MS / 2, StopReason::Halted(None), Hints::default());
    assert_eq!(p.pick(0), Some((waiter, holder)), "the edge still stands");
}

/// What an honest guest with one queue lock publishes: the waiter named the holder, and the holder released it and
/// queued again behind the waiter. The waiter's edge is stale, though it closes a circle.
#[test]
fn a_stale_edge_that_closes_a_circle_is_no_deadlock_and_the_head_of_the_queue_is_carried() {
    for between in [0, 1] {
        let mut p = Pool::new(1);
        let g = p.guest();
        let head = p.hard(g, 1, 100);
        let rest: Vec<_> = (0..between).map(|i| p.hard(g, 1, 90 - i)).collect();
        let anew = p.hard(g, 5, 10);
        p.ring(head, 0, spins_on(anew));
        let mut ahead = head;
        for &vcpu in &rest {
            p.ring(vcpu, 0, spins_on(ahead));
            ahead = vcpu;
        }
        let released = Hints {
            releases: 1,
            ..spins_on(ahead)
        };
        p.ring(anew, 0, released);
        assert_eq!(p.pick(0), Some((anew, head)));
        let all = rest.iter().chain([&head, &anew]);
        assert_eq!(all.map(|&v| p.counters(v).cycles).sum::<u64>(), 0);
        assert_eq!(p.counters(head).stale_edges, 1);
    }
}
