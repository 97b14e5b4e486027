//! Bugs that were found. The name of each test describes the bug.

use crate::pool::{LOCK, MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{
    CpuId, CpuSet, CpuTime, Exhaustion, Hints, Reservation, SchedParams, StopReason, VcpuId,
};

#[test]
fn donor_whose_own_vcpu_was_carried_elsewhere_meanwhile_was_lost() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (first, second, third) = (p.hard(g, 1, 100), p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(first, 0);
    p.ring(second, 0, spins_on(first));
    assert_eq!(p.pick(0), Some((second, first)));
    p.ring(third, 1, spins_on(second));
    assert_eq!(p.pick(1), Some((third, second)));
    // The second vCPU's scheduling context comes off CPU 0 while the vCPU runs on CPU 1 ...
    p.pass(MS);
    p.stop(0, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
    // ... and must compete again when that stops.
    p.run(1, MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), Some((second, second)));
}

#[test]
fn timer_set_by_a_cpu_that_then_found_work_had_no_timekeeper() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (sleeper, other) = (p.hard(g, 1, 10), p.hard(g, 50, 100));
    assert_eq!(p.pick(1), None, "CPU 1 sleeps without a timer");
    p.wake(sleeper);
    p.pick(0);
    p.wake(other);
    p.kicks();
    p.stop(0, StopReason::Halted(Some(5 * MS)), quiet());
    let until = p.decide(0).unwrap().until.unwrap();
    assert!(
        until <= 5 * MS || p.kicks() == [1],
        "CPU 0 reschedules in time, or CPU 1 learns of the timer"
    );
}

#[test]
fn timer_had_no_timekeeper_when_that_found_work() {
    let mut p = Pool::new(3);
    let g = p.guest();
    let (sleeper, woken) = (p.hard(g, 1, 10), p.hard(g, 50, 100));
    assert_eq!(p.pick(1), None, "CPU 1 sleeps without a timer");
    p.wake(sleeper);
    p.kicks();
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    p.stop(0, StopReason::Halted(Some(5 * MS)), quiet());
    assert_eq!(p.pick(0), None);
    // Which CPU is the timekeeper?
    let timekeepers = p.kicks();
    for &cpu in &timekeepers {
        assert_eq!(p.pick(cpu), None);
    }
    p.wake(woken);
    let kicked = p.kicks();
    assert_eq!(kicked.len(), 1);
    let decision = p.decide(kicked[0]).unwrap();
    let others_learn = !p.kicks().is_empty();
    assert!(
        timekeepers.contains(&1) && kicked[0] != 1
            || others_learn
            || decision.until.is_some_and(|until| until <= 5 * MS)
    );
}

#[test]
fn vcpu_throttled_as_it_woke_on_a_busy_pool_was_forgotten() {
    // D < P: it wakes after its deadline, before its next period. No CPU is about to pick, and CPU 0 runs a
    // hog without a slice.
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let constrained = Reservation::new(2 * MS, 10 * MS, 4 * MS, Exhaustion::Hard).unwrap();
    let v = p
        .policy
        .add_vcpu(g, SchedParams::Reserved(constrained), None);
    let v = v.unwrap();
    let hog = p.best_effort(h, 100);
    p.wake(v);
    p.pick(0);
    p.run(0, MS, StopReason::Halted(None), quiet());
    p.wake(hog);
    assert_eq!(p.decide(0).unwrap().until, None);
    p.kicks();
    p.now = 5 * MS;
    p.wake(v);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.curr, decision.until), (hog, Some(10 * MS)));
}

#[test]
fn spinner_behind_a_sleeping_chain_slept_without_a_bound() {
    // It waits for a vCPU that sleeps on a mutex whose holder halts. It could run itself meanwhile.
    let mut p = Pool::new(1);
    let g = p.guest();
    let (last, middle, first) = (p.hard(g, 1, 100), p.hard(g, 1, 50), p.hard(g, 5, 10));
    p.wake(last);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), holding());
    p.wake(middle);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(last));
    assert_eq!(p.pick(0), None);
    p.ring(first, 0, spins_on(middle));
    assert_eq!(p.pick(0), None);
    p.now = p.policy.next_timer().expect("a spinner's sleep is bounded");
    assert_eq!(p.pick(0), Some((first, first)));
}

#[test]
fn vcpu_whose_kick_served_another_one_was_not_offered_again() {
    // X may run on both CPUs, W and Y on CPU 0 only. CPU 0 is kicked for X, but Y, and behind it
    // W, come first there: X must get CPU 1 from best effort.
    let mut p = Pool::new(2);
    let (g, h) = (p.guest(), p.guest());
    let (a, b) = (p.best_effort(h, 1), p.best_effort(h, 1));
    let x = p.hard(g, 1, 100);
    let w = p.hard_on(g, 1, 50, Some(&[0]));
    let y = p.hard_on(g, 1, 40, Some(&[0]));
    p.wake(a);
    p.wake(b);
    p.pick(1);
    p.pick(0);
    p.kicks();
    p.wake(x);
    assert_eq!(p.kicks(), [0], "the later of the two best-effort vCPUs");
    p.wake(y);
    p.wake(w);
    p.pass(US);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((y, y)));
    assert_eq!(p.kicks(), [1]);
    p.stop(1, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), Some((x, x)));
    assert_eq!(p.policy.running(CpuId(0)), Some((y, y)));
}

#[test]
fn sleeper_whose_edge_went_while_it_was_queued_competed_for_nothing() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let holder = p.hard(g, 1, 100);
    let (sleeper, spinner) = (p.hard(g, 5, 20), p.hard(g, 2, 10));
    p.preempt_holder(holder, 0);
    p.wake(sleeper);
    p.pick(0);
    p.stop(0, StopReason::Halted(None), sleeps_on(holder));
    p.ring(spinner, 0, crate::pool::spins_on(holder));
    assert_eq!(p.pick(0), Some((spinner, holder)));
    p.release(0, None);
    p.stop(0, StopReason::Rang, quiet());
    assert_eq!(p.pick(0), Some((spinner, spinner)));
    p.stop(0, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), Some((holder, holder)), "the sleeper sleeps on");
}

/// Every CPU that is kicked reschedules, until none is kicked.
fn settle(p: &mut Pool) {
    for _ in 0..10 {
        let kicks = p.kicks();
        if kicks.is_empty() {
            return;
        }
        for cpu in kicks {
            p.stop(cpu, StopReason::Preempted, quiet());
            p.pick(cpu);
        }
    }
    panic!("CPUs are kicked for ever");
}

#[test]
fn sleepers_pinned_to_the_cpu_of_each_others_holder_had_both_kicked_for_ever() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holders = [0, 1].map(|cpu| p.hard_on(g, 1, 100, Some(&[cpu])));
    let sleepers = [1, 0].map(|cpu| p.hard_on(g, 1, 10, Some(&[cpu])));
    for (cpu, holder) in (0..).zip(holders) {
        p.wake(holder);
        assert_eq!(p.pick(cpu), Some((holder, holder)));
    }
    for (holder, cpu) in [(0, 1), (1, 0)] {
        let sleeper = sleepers[holder];
        p.wake(sleeper);
        p.stop(cpu, StopReason::Preempted, quiet());
        assert_eq!(p.pick(cpu), Some((sleeper, sleeper)));
        p.stop(cpu, StopReason::Halted(None), sleeps_on(holders[holder]));
        p.pick(cpu);
    }
    settle(&mut p);
    // Each holder runs. When one stops for a moment, its sleeper competes, and is more urgent than what runs
    // on the sleeper's CPU.
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((holders[0], holders[0])));
    settle(&mut p);
    assert_eq!(p.policy.running(CpuId(1)), Some((holders[1], holders[1])));
}

#[test]
fn donors_that_went_home_after_each_turn_had_both_cpus_kicked_for_ever() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let at_home = |p: &mut Pool| {
        let home: CpuSet = [CpuId(1)].into_iter().collect();
        let params = SchedParams::BestEffort { weight: 100 };
        p.policy.add_vcpu(g, params, Some(home)).unwrap()
    };
    for _ in 0..2 {
        // Out of budget, with a mutex.
        let holder = p.hard_on(g, 1, 1000, Some(&[0]));
        p.wake(holder);
        p.stop(0, StopReason::Preempted, quiet());
        assert_eq!(p.pick(0), Some((holder, holder)));
        p.run(0, MS, StopReason::Preempted, quiet());
        p.pick(0);
        let donor = at_home(&mut p);
        p.wake(donor);
        assert_eq!(p.pick(1), Some((donor, donor)));
        p.stop(1, StopReason::Halted(None), sleeps_on(holder));
        assert_eq!(
            p.pick(1),
            None,
            "the donor goes to where the holder may run"
        );
    }
    let hog = at_home(&mut p);
    p.wake(hog);
    settle(&mut p);
    p.stop(0, StopReason::Preempted, quiet());
    p.pick(0);
    settle(&mut p);
    assert_eq!(p.policy.running(CpuId(1)), Some((hog, hog)));
}

#[test]
fn a_sleeper_that_was_charged_elsewhere_woke_without_a_timekeeper() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let sleeper = p.hard(g, 1, 18);
    let runner = p.hard(g, 17, 20);
    p.wake(sleeper);
    p.pick(0);
    let wakes_at = p.now + 22 * MS;
    p.stop(0, StopReason::Halted(Some(wakes_at)), quiet());
    p.pass(7 * MS);
    p.wake(runner);
    assert_eq!(p.pick(0), Some((runner, runner)));
    settle(&mut p);
    // The charge begins a period of the sleeper. If it wakes within that, it keeps the deadline, which is earlier
    // than that of the vCPU that runs.
    p.policy.charge_elsewhere(sleeper, CpuTime(US), p.now);
    settle(&mut p);
    let (_, curr) = p.policy.running(CpuId(0)).unwrap();
    assert_eq!(curr, runner, "until the timer is due");
    vcpu_sched::sim::audit(&p.policy).unwrap();
}

/// A waiter whose scheduling context competes in the queue of its holder's CPU, CPU 1, where the holder itself runs.
/// CPU 0 has nothing to do.
fn waiter_in_the_queue_of_its_holders_cpu() -> (Pool, VcpuId, VcpuId) {
    let mut p = Pool::new(2);
    let g = p.guest();
    let weight = SchedParams::BestEffort { weight: 100 };
    let only_cpu1 = Some(CpuSet::only(CpuId(1)));
    let holder = p.policy.add_vcpu(g, weight, only_cpu1).unwrap();
    let waiter = p.best_effort(g, 100);
    p.preempt_holder(holder, 1);
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.stop(0, StopReason::Rang, spins_on(holder));
    assert_eq!(p.pick(0), None, "the holder may run on CPU 1 only");
    assert_eq!(p.pick(1), Some((holder, holder)), "it came first");
    p.kicks();
    (p, holder, waiter)
}

#[test]
fn waiter_that_was_handed_its_lock_waited_in_the_queue_of_the_former_holder() {
    let (mut p, _, waiter) = waiter_in_the_queue_of_its_holders_cpu();
    p.policy.hand_over(CpuId(1), LOCK, waiter, p.now);
    assert_eq!(p.kicks(), [0], "it can run there");
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn waiter_waited_in_the_queue_of_a_holder_that_had_released_its_lock() {
    let (mut p, holder, waiter) = waiter_in_the_queue_of_its_holders_cpu();
    let released = Hints {
        releases: 1,
        ..quiet()
    };
    p.stop(1, StopReason::Rang, released);
    assert_eq!(p.pick(1), Some((holder, holder)), "it came first");
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn waiter_waited_in_the_queue_of_a_holder_that_had_ended() {
    let (mut p, holder, waiter) = waiter_in_the_queue_of_its_holders_cpu();
    let g = p.guest();
    p.hard_on(g, 1, 10, Some(&[1]));
    p.wake(VcpuId(2));
    p.stop(1, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((VcpuId(2), VcpuId(2))));
    p.kicks();
    p.policy.remove(holder, p.now);
    assert_eq!(p.kicks(), [0]);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn waiter_waited_in_the_queue_of_a_holder_that_may_run_elsewhere() {
    let (mut p, holder, waiter) = waiter_in_the_queue_of_its_holders_cpu();
    let g = p.guest();
    p.hard_on(g, 1, 10, Some(&[1]));
    p.wake(VcpuId(2));
    p.stop(1, StopReason::Preempted, holding());
    assert_eq!(p.pick(1), Some((VcpuId(2), VcpuId(2))));
    p.kicks();
    p.policy.set_allowed(holder, None, p.now).unwrap();
    assert_eq!(p.kicks(), [0]);
    let carried = p.pick(0).unwrap();
    assert_eq!(carried.1, holder, "and {waiter} waits for it");
}

#[test]
fn cpu_was_as_urgent_as_its_donor_had_been_before_that_halted_elsewhere() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let [holder, donor, waiter] = [(); 3].map(|()| p.best_effort(g, 100));
    p.wake(holder);
    assert_eq!(p.pick(0), Some((holder, holder)));
    p.run(0, 4 * MS, StopReason::Preempted, holding());
    p.wake(donor);
    assert_eq!(p.pick(0), Some((donor, donor)));
    p.run(0, MS, StopReason::Rang, spins_on(holder));
    assert_eq!(p.pick(0), Some((donor, holder)));
    assert_eq!(
        p.pick(1),
        None,
        "it sleeps, so CPU 0 is not kicked for the waiter"
    );
    // The donor's vCPU runs on CPU 1, and halts there: its slice ends, and it is behind the others.
    p.ring(waiter, 1, spins_on(donor));
    assert_eq!(p.pick(1), Some((waiter, donor)));
    // (The check of the policy's state after each call holds this, in debug builds.)
    p.stop(1, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(1), None);
}
