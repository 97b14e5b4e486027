//! Sleepers on mutexes: their wake-ups race with their donations. Each race has its test.

use crate::pool::{LOCK, MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{CpuId, Event, Hints, StopReason, VcpuId};

/// `vcpu` runs on `cpu` and goes to sleep on a mutex of `holder`.
fn falls_asleep(p: &mut Pool, cpu: u32, vcpu: VcpuId, holder: VcpuId) {
    falls_asleep_on(p, cpu, vcpu, sleeps_on(holder));
}

fn falls_asleep_on(p: &mut Pool, cpu: u32, vcpu: VcpuId, hints: Hints) {
    p.wake(vcpu);
    assert_eq!(p.pick(cpu), Some((vcpu, vcpu)), "it is the earliest");
    p.stop(cpu, StopReason::Halted(None), hints);
}

/// The same for another lock than [`LOCK`].
fn sleeps_on_another_lock(holder: VcpuId) -> Hints {
    let mut hints = sleeps_on(holder);
    hints.wait.as_mut().unwrap().lock = LOCK + 64;
    hints
}

/// A preempted holder, and a sleeper that carries it on CPU 0 of `cpus`.
fn carried(cpus: usize) -> (Pool, VcpuId, VcpuId) {
    let mut p = Pool::new(cpus);
    let g = p.guest();
    let (holder, sleeper) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.preempt_holder(holder, 0);
    falls_asleep(&mut p, 0, sleeper, holder);
    assert_eq!(p.pick(0), Some((sleeper, holder)));
    p.kicks();
    (p, holder, sleeper)
}

/// One CPU, a preempted holder, and two vCPUs that sleep on its mutex. The second is the more urgent and
/// carries the holder.
fn two_sleepers() -> (Pool, VcpuId, VcpuId, VcpuId) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (later, earlier) = (p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(holder, 0);
    falls_asleep(&mut p, 0, later, holder);
    falls_asleep(&mut p, 0, earlier, holder);
    assert_eq!(p.pick(0), Some((earlier, holder)));
    p.kicks();
    (p, holder, later, earlier)
}

fn wake_by(p: &mut Pool, cpu: u32, vcpu: VcpuId) {
    p.policy.wake_by(CpuId(cpu), vcpu, p.now);
}

#[test]
fn wake_of_the_carried_vcpu_is_not_lost() {
    let (mut p, holder, sleeper) = carried(1);
    p.wake(holder);
    p.run(0, 10 * US, StopReason::Halted(None), holding());
    assert_eq!(
        p.pick(0),
        Some((sleeper, holder)),
        "its halt returned, and it still owns the mutex"
    );
}

#[test]
fn donor_that_the_carried_holder_wakes_has_the_mutex_and_its_cpu_back() {
    let (mut p, _, sleeper) = carried(1);
    p.pass(10 * US);
    wake_by(&mut p, 0, sleeper);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
}

#[test]
fn hand_over_to_another_sleeper_carries_that_one_from_now_on() {
    let (mut p, holder, later, earlier) = two_sleepers();
    p.pass(10 * US);
    // First come, first served: the less urgent vCPU has the mutex now.
    wake_by(&mut p, 0, later);
    assert_eq!(p.kicks(), [0], "the donor waits for another vCPU now");
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((earlier, later)));
    assert_eq!(p.counters(holder).received_ns, 10 * US);
}

#[test]
fn hand_over_by_a_holder_on_its_own_budget_moves_the_other_sleepers() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.hard(g, 10, 50);
    let (next, urgent) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    for sleeper in [next, urgent] {
        falls_asleep(&mut p, 0, sleeper, holder);
        assert_eq!(p.pick(0), None);
    }
    p.kicks();
    wake_by(&mut p, 1, next);
    assert_eq!(p.kicks(), [0], "the new owner has an idle CPU");
    assert_eq!(
        p.pick(0),
        Some((urgent, next)),
        "and the most urgent budget that waits for it"
    );
    // The old owner is carried no longer.
    p.run(1, MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), Some((holder, holder)));
}

#[test]
fn hand_over_to_one_that_did_not_sleep_yet_lets_the_sleepers_carry_it() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.hard(g, 10, 50);
    let (next, sleeper) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    // It runs out of budget before it sleeps.
    p.wake(next);
    assert_eq!(p.pick(0), Some((next, next)));
    p.run(0, MS, StopReason::Preempted, quiet());
    falls_asleep(&mut p, 0, sleeper, holder);
    assert_eq!(p.pick(0), None);
    p.kicks();
    p.policy.hand_over(CpuId(1), LOCK, next, p.now);
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((sleeper, next)));
}

#[test]
fn hand_over_that_makes_no_sense_changes_nothing() {
    let (mut p, holder, _, earlier) = two_sleepers();
    let (g, now) = (p.guest(), p.now);
    let stranger = p.hard(g, 1, 5);
    for to in [holder, stranger, VcpuId(77)] {
        p.policy.hand_over(CpuId(0), LOCK, to, now);
    }
    p.policy.hand_over(CpuId(7), LOCK, earlier, now);
    p.policy.hand_over(CpuId(0), LOCK + 64, earlier, now);
    assert_eq!(p.kicks(), []);
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((earlier, holder)));
}

#[test]
fn wake_by_a_stranger_hands_nothing_over() {
    let (mut p, holder, later, earlier) = two_sleepers();
    let g = p.guest();
    p.stop(0, StopReason::Preempted, holding());
    let stranger = p.hard(g, 1, 5);
    p.wake(stranger);
    assert_eq!(p.pick(0), Some((stranger, stranger)));
    wake_by(&mut p, 0, later);
    wake_by(&mut p, 0, VcpuId(77));
    wake_by(&mut p, 7, earlier);
    p.run(0, 10 * US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((earlier, earlier)), "woken as well");
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), Some((earlier, holder)));
}

#[test]
fn hand_over_of_one_mutex_leaves_the_sleepers_on_another() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (next, other) = (p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(holder, 0);
    falls_asleep(&mut p, 0, next, holder);
    falls_asleep_on(&mut p, 0, other, sleeps_on_another_lock(holder));
    assert_eq!(p.pick(0), Some((other, holder)));
    p.kicks();
    wake_by(&mut p, 0, next);
    assert_eq!(p.kicks(), [], "it is carried for the other mutex");
    p.run(0, 10 * US, StopReason::Preempted, holding());
    assert_eq!(p.pick(0), Some((other, holder)));
}

#[test]
fn wake_that_overtakes_the_sleep_leaves_no_donor_behind() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (holder, sleeper) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    p.wake(sleeper);
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    assert_eq!(p.pick(1), Some((holder, holder)));
    // It has published for which vCPU it is about to sleep, and gets the mutex before it sleeps.
    wake_by(&mut p, 1, sleeper);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    p.run(0, 10 * US, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
}

#[test]
fn release_after_the_holder_has_moved_to_another_donors_cpu_counts_there() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (first, second) = (p.hard(g, 1, 10), p.hard(g, 5, 20));
    p.preempt_holder(holder, 0);
    falls_asleep(&mut p, 1, second, holder);
    falls_asleep(&mut p, 0, first, holder);
    assert_eq!(p.pick(0), Some((first, holder)));
    assert_eq!(p.pick(1), None, "the other donor waits for it to stop");
    // The first donor's budget ends. The second donor's CPU takes the holder over.
    p.run(0, MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((second, holder)));
    assert_eq!(p.pick(0), None);
    // A release that reaches the first CPU only now has no effect.
    p.release(0, None);
    p.run(1, MS, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((second, holder)));
    // A release on the CPU of the holder ends both waits.
    wake_by(&mut p, 1, second);
    p.stop(1, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), Some((second, second)));
    assert_eq!(p.counters(first).donated_ns, MS);
    assert_eq!(p.counters(second).donated_ns, MS);
}

#[test]
fn holder_that_halts_while_carried_costs_its_donor_nothing_until_it_wakes() {
    let (mut p, holder, sleeper) = carried(1);
    p.run(0, 10 * US, StopReason::Halted(None), holding());
    assert_eq!(p.pick(0), None);
    assert_eq!(p.policy.next_timer(), None, "no CPU has to reschedule");
    p.pass(50 * MS);
    p.wake(holder);
    assert_eq!(p.pick(0), Some((sleeper, holder)));
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.counters(sleeper).donated_ns, 10 * US);
}

#[test]
fn holder_that_falls_asleep_on_a_mutex_while_carried_passes_the_budget_on() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.preempt_holder(last, 0);
    p.preempt_holder(middle, 0);
    falls_asleep(&mut p, 0, first, middle);
    assert_eq!(p.pick(0), Some((first, middle)));
    p.run(
        0,
        10 * US,
        StopReason::Halted(None),
        sleeps_on_another_lock(last),
    );
    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr, decision.chain, decision.lock),
        (first, last, 2, LOCK + 64)
    );
}

#[test]
fn holder_that_ends_while_carried_leaves_a_sleeper_that_can_be_woken() {
    let (mut p, holder, sleeper) = carried(1);
    p.run(0, 10 * US, StopReason::Ended, holding());
    assert_eq!(p.pick(0), None, "it sleeps, and carries no vCPU");
    assert_eq!(p.counters(sleeper).stale_edges, 1);
    assert_eq!(p.policy.next_timer(), None);
    p.wake(holder);
    assert_eq!(p.pick(0), None);
    p.wake(sleeper);
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
}

#[test]
fn edge_that_is_replaced_before_the_decision_leads_to_the_new_holder() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (old, new) = (p.hard(g, 1, 90), p.hard(g, 1, 100));
    let sleeper = p.hard(g, 5, 10);
    p.preempt_holder(new, 0);
    p.preempt_holder(old, 1);
    falls_asleep(&mut p, 0, sleeper, old);
    // Its scheduling context is queued for the old holder. Before any CPU picks, it wakes and sleeps again.
    falls_asleep(&mut p, 1, sleeper, new);
    assert_eq!(p.pick(0), Some((sleeper, new)));
    assert!(p.saw(Event::EdgeOff(sleeper)));
    assert_eq!(p.pick(1), Some((old, old)));
    p.stop(0, StopReason::Preempted, holding());
    assert_eq!(p.counters(old).received_ns, 0);
}

#[test]
fn edge_that_a_hand_over_replaces_while_its_waiter_is_parked_competes_at_once() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.hard(g, 10, 50);
    let (next, other) = (p.hard(g, 1, 100), p.hard(g, 5, 10));
    p.wake(holder);
    assert_eq!(p.pick(1), Some((holder, holder)));
    // The next owner has used up its budget: it wakes throttled.
    p.wake(next);
    p.pick(0);
    p.run(0, MS, StopReason::Halted(None), sleeps_on(holder));
    falls_asleep(&mut p, 0, other, holder);
    assert_eq!(p.pick(0), None);
    p.kicks();
    wake_by(&mut p, 1, next);
    assert_eq!(p.kicks(), [0]);
    assert_eq!(
        p.pick(0),
        Some((other, next)),
        "on the budget of the other waiter"
    );
}

#[test]
fn deadlock_of_two_sleepers_costs_nothing_and_is_counted() {
    for cpus in [1, 2] {
        let mut p = Pool::new(cpus);
        let g = p.guest();
        let (a, b) = (p.hard(g, 5, 20), p.hard(g, 5, 10));
        let last = cpus as u32 - 1;
        p.preempt_holder(a, 0);
        falls_asleep(&mut p, last, b, a);
        assert_eq!(p.pick(0), Some((b, a)));
        p.stop(0, StopReason::Halted(None), sleeps_on(b));
        for cpu in 0..=last {
            assert_eq!(p.pick(cpu), None);
        }
        assert_eq!(p.counters(a).cycles + p.counters(b).cycles, 1);
        assert_eq!(p.policy.next_timer(), None, "no CPU reschedules");
        let charged = p.counters(a).charged_ns + p.counters(b).charged_ns;
        assert_eq!(charged, 0, "no time passed here, so none was charged");
    }
}

#[test]
fn sleepers_behind_a_deadlock_cost_nothing_either() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (a, b, c) = (p.hard(g, 5, 30), p.hard(g, 5, 20), p.hard(g, 5, 10));
    p.preempt_holder(a, 0);
    p.preempt_holder(b, 0);
    falls_asleep(&mut p, 0, c, a);
    assert_eq!(p.pick(0), Some((c, a)));
    p.stop(0, StopReason::Halted(None), sleeps_on(b));
    assert_eq!(p.pick(0), Some((c, b)));
    p.stop(0, StopReason::Halted(None), sleeps_on(a));
    assert_eq!(p.pick(0), None);
    assert_eq!(p.policy.next_timer(), None);
    assert!(p.counters(c).cycles > 0, "its chain has no end");
}

#[test]
fn deadlock_that_an_interrupt_interrupts_is_found_again_and_still_costs_nothing() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (a, b) = (p.hard(g, 5, 20), p.hard(g, 5, 10));
    p.preempt_holder(a, 0);
    falls_asleep(&mut p, 0, b, a);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(b));
    assert_eq!(p.pick(0), None);
    for _ in 0..3 {
        p.pass(MS);
        p.wake(b);
        assert_eq!(p.pick(0), Some((b, b)));
        p.stop(0, StopReason::Halted(None), sleeps_on(a));
        assert_eq!(p.pick(0), None);
        assert_eq!(p.policy.next_timer(), None);
    }
}

#[test]
fn nested_chain_of_three_sleepers_runs_its_end_on_the_first_ones_budget() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let end = p.hard(g, 1, 100);
    let sleepers: Vec<_> = [50, 20, 10].map(|period| p.hard(g, 1, period)).to_vec();
    p.preempt_holder(end, 0);
    let mut holder = end;
    for &sleeper in &sleepers {
        falls_asleep(&mut p, 0, sleeper, holder);
        holder = sleeper;
    }
    let first = sleepers[2];
    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr, decision.chain),
        (first, end, 3)
    );
    // When its budget ends, the next in the chain is the donor, and so on.
    for (donor, chain) in [(sleepers[1], 2), (sleepers[0], 1), (end, 0)] {
        p.run(0, MS, StopReason::Preempted, holding());
        let decision = p.decide(0).unwrap();
        assert_eq!(
            (decision.donor, decision.curr, decision.chain),
            (donor, end, chain)
        );
    }
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.counters(end).received_ns, 3 * MS);
}

#[test]
fn spinner_behind_a_sleeper_is_carried_along_the_mutex() {
    // The spinner waits for a sleeper, which waits for a mutex: only one of the edges is a mutex.
    let mut p = Pool::new(1);
    let g = p.guest();
    let (end, sleeper, spinner) = (p.hard(g, 1, 100), p.hard(g, 2, 20), p.hard(g, 5, 10));
    p.preempt_holder(end, 0);
    falls_asleep(&mut p, 0, sleeper, end);
    p.ring(spinner, 0, spins_on(sleeper));
    assert_eq!(p.pick(0), Some((spinner, end)));
    p.kicks();
    // The mutex is handed to the sleeper: the spinner's chain is shorter by one edge.
    wake_by(&mut p, 0, sleeper);
    p.run(0, 10 * US, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((spinner, sleeper)));
}

/// Numbers for one seed (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One random call on one of two CPUs.
fn random_call(p: &mut Pool, all: &[VcpuId], draw: &mut Draw) {
    let cpu = draw.below(2) as u32;
    let (one, other) = (all[draw.below(6) as usize], all[draw.below(6) as usize]);
    let mut hints = if draw.below(2) == 0 {
        sleeps_on(other)
    } else {
        sleeps_on_another_lock(other)
    };
    if draw.below(4) == 0 {
        hints = spins_on(other);
    }
    p.pass(draw.below(2 * MS));
    let runs = p.policy.running(CpuId(cpu)).is_some();
    match draw.below(6) {
        0 => p.wake(one),
        1 | 2 => wake_by(p, cpu, one),
        3 => p.policy.hand_over(CpuId(cpu), LOCK, one, p.now),
        4 if runs && draw.below(4) == 0 => p.release(cpu, Some(one)),
        _ if runs => {
            let why = [
                StopReason::Halted(None),
                StopReason::Preempted,
                StopReason::Rang,
            ];
            p.stop(cpu, why[draw.below(3) as usize], hints);
            p.pick(cpu);
        }
        _ => drop(p.pick(cpu)),
    }
}

/// Runs two CPUs for long enough that all debts are paid off. All locks have been released, so no vCPU spins
/// for them.
fn run_on(p: &mut Pool) {
    let released = Hints {
        releases: 1,
        ..Hints::default()
    };
    for _ in 0..4000 {
        for cpu in [0, 1] {
            p.stop(cpu, StopReason::Preempted, released);
            p.pick(cpu);
        }
        p.pass(MS);
    }
}

/// Sleeps, wake-ups by holders and by others, releases and ends, in any order. The policy checks itself (in
/// debug builds), and in the end every vCPU that is woken runs.
#[test]
fn no_order_of_sleeps_wakes_and_hand_overs_breaks_the_state_or_loses_a_vcpu() {
    for seed in 1..60_u64 {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut p = Pool::new(2);
        let g = p.guest();
        let pinned: [&[u32]; 3] = [&[0], &[1], &[0, 1]];
        let all: Vec<VcpuId> = (0..6)
            .map(|i| match i {
                0 | 1 => p.best_effort(g, 100),
                _ => p.hard_on(
                    g,
                    1 + draw.below(2),
                    10 + 5 * i,
                    Some(pinned[i as usize % 3]),
                ),
            })
            .collect();
        for _ in 0..300 {
            random_call(&mut p, &all, &mut draw);
        }
        for &vcpu in &all {
            p.wake(vcpu);
        }
        let before: Vec<_> = all.iter().map(|&v| p.counters(v).runtime_ns).collect();
        run_on(&mut p);
        for (&vcpu, before) in all.iter().zip(before) {
            let ran = p.counters(vcpu).runtime_ns;
            assert!(ran > before, "{vcpu} of seed {seed}");
        }
    }
}
