//! Which vCPU a donor carries, for every state that the holder can be in: the branches of `proxy.rs`.

use crate::pool::{MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{Config, Event, StopReason};

#[test]
fn runnable_holder_runs_here_on_the_waiters_budget() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));

    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr, decision.chain),
        (waiter, holder, 1)
    );
    assert_eq!(decision.lock, crate::pool::LOCK);
    assert_eq!(
        decision.until,
        Some(5 * MS),
        "until the donor's budget ends, not the holder's"
    );

    p.run(0, 300 * US, StopReason::Preempted, holding());
    let (holder, waiter) = (p.counters(holder), p.counters(waiter));
    assert_eq!((holder.received_ns, holder.charged_ns), (300 * US, 0));
    assert_eq!((waiter.donated_ns, waiter.runtime_ns), (300 * US, 0));
    assert_eq!((holder.proxied, holder.longest_chain), (1, 1));
}

#[test]
fn without_proxying_the_waiter_runs_itself() {
    let mut p = Pool::with(Config {
        proxy: false,
        ..Config::new(1)
    });
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn holder_queued_for_another_cpu_is_brought_here() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    let busy = p.hard(g, 4, 5);
    // The holder ran on CPU 1 and was preempted there by a more urgent vCPU.
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.wake(busy);
    p.stop(1, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((busy, busy)));
    p.stop(0, StopReason::Rang, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
}

#[test]
fn spinner_spins_while_its_holder_runs_elsewhere() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn sleeper_whose_holder_runs_elsewhere_leaves_the_queue_until_the_holder_stops() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), None);
    assert!(p.saw(Event::Park {
        vcpu: waiter,
        on: holder
    }));

    // The holder's own millisecond is used up: the waiter carries it on at once.
    p.run(1, MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((waiter, holder)));
}

#[test]
fn halted_holder_lets_its_spinner_sleep_with_it_and_wake_with_it() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 2, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(
        p.pick(0),
        None,
        "a spinner would burn its budget for nothing"
    );

    p.pass(100 * US);
    p.wake(holder);
    assert_eq!(p.pick(0), Some((waiter, holder)));
}

#[test]
fn spinner_sleeps_with_a_halted_holder_no_longer_than_the_bound() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 2, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), None);
    let bound = p.policy.next_timer().unwrap();
    assert_eq!(bound, p.now + p.policy.config().park_ns);

    p.now = bound;
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn sleeper_sleeps_with_a_halted_holder_without_a_bound() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 2, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.wake(waiter);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), None);
    assert_eq!(p.policy.next_timer(), None);

    p.wake(holder);
    assert_eq!(p.pick(0), Some((waiter, holder)));
}

#[test]
fn holder_that_itself_waits_is_followed_to_its_own_holder() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.preempt_holder(last, 0);
    // The vCPU in the middle sleeps while the first spins for it.
    p.wake(middle);
    assert_eq!(p.pick(0), Some((middle, middle)));
    p.stop(0, StopReason::Halted(None), sleeps_on(last));
    p.ring(first, 0, spins_on(middle));

    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr, decision.chain),
        (first, last, 2)
    );
}

#[test]
fn chain_of_eight_runs_its_last_link_on_the_first_ones_budget() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let links: Vec<_> = (0..9).map(|i| p.hard(g, 1, 100 - 10 * i)).collect();
    p.preempt_holder(links[0], 0);
    for pair in links.windows(2) {
        p.ring(pair[1], 0, spins_on(pair[0]));
    }
    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr, decision.chain),
        (links[8], links[0], 8)
    );
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.counters(links[0]).longest_chain, 8);
}

#[test]
fn throttled_holder_runs_on_the_waiters_budget() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.pick(0);
    p.run(0, MS, StopReason::Preempted, holding());
    assert!(p.saw(Event::Throttle(holder, 100 * MS)));
    assert_eq!(p.pick(0), None);

    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.run(0, MS, StopReason::Preempted, holding());
    assert_eq!(p.counters(holder).charged_ns, MS, "its own budget is spent");
    assert_eq!(p.counters(holder).runtime_ns, 2 * MS);
}

#[test]
fn replenished_while_it_runs_on_a_donors_budget_it_goes_back_into_the_queue_when_it_stops() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 10), p.hard(g, 50, 100));
    p.wake(holder);
    p.pick(0);
    p.run(0, MS, StopReason::Preempted, holding());
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    // Other vCPUs run when the holder's timer fires.
    p.now = 10 * MS;
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(
        p.pick(0),
        Some((holder, holder)),
        "its deadline of 20 ms is earlier than the donor's"
    );
}

#[test]
fn holder_pinned_elsewhere_takes_its_donor_to_where_it_may_run() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.hard_on(g, 1, 100, Some(&[1]));
    let waiter = p.hard_on(g, 5, 10, Some(&[0]));
    p.preempt_holder(holder, 1);
    // A less urgent vCPU has CPU 1.
    let other = p.hard_on(g, 20, 50, Some(&[1]));
    p.wake(other);
    assert_eq!(p.pick(1), Some((other, other)));
    p.kicks();

    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), None, "nothing else may run here");
    assert_eq!(p.kicks(), [1], "the donor moved there, and is more urgent");
    p.stop(1, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), Some((waiter, holder)));

    // When the holder releases its lock, the donor goes back to its own CPU.
    p.release(1, None);
    p.stop(1, StopReason::Rang, quiet());
    assert_eq!(p.pick(1), Some((other, other)));
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn holder_that_is_gone_is_waited_for_no_longer() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    p.policy.remove(holder, p.now);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    assert_eq!(p.counters(waiter).stale_edges, 1);
}

#[test]
fn edge_whose_holder_has_released_since_is_stale() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (holder, waiter) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.pick(0);
    // The waiter read the count before the release. The holder was stopped after it.
    let released = vcpu_sched::Hints {
        depth: 1,
        releases: 1,
        ..vcpu_sched::Hints::default()
    };
    p.stop(0, StopReason::Preempted, released);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    assert_eq!(p.counters(waiter).stale_edges, 1);
}

#[test]
fn stale_edge_in_the_middle_of_a_chain_ends_it_there() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.preempt_holder(last, 0);
    p.ring(middle, 0, spins_on(last));
    p.ring(first, 0, spins_on(middle));
    p.policy.remove(last, p.now);
    assert_eq!(p.pick(0), Some((first, middle)));
}
