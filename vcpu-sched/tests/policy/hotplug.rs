//! CPUs that go offline and online.

use crate::pool::{MS, Pool, US, holding, quiet, sleeps_on, spins_on};
use vcpu_sched::{
    Config, CpuId, CpuSet, CpuTime, Doing, GuestId, Ns, Reservation, SchedParams, StopReason,
    VcpuId, WorkerOrder,
};

impl Pool {
    fn offline(&mut self, cpu: u32) -> bool {
        self.policy.cpu_offline(CpuId(cpu), self.now)
    }

    fn online(&mut self, cpu: u32) -> bool {
        self.policy.cpu_online(CpuId(cpu), self.now)
    }

    /// Budget and deadline in force, ns.
    fn in_force(&self, vcpu: VcpuId) -> (Ns, Ns) {
        let view = self.policy.view(vcpu).unwrap();
        let (promised, ..) = view.reserved.unwrap();
        let reservation = view.reduced.map_or(promised, |(reduced, _)| reduced);
        (reservation.budget(), reservation.deadline())
    }

    fn shrink(&mut self, vcpu: VcpuId, q: u64, p: u64) {
        let reservation = Reservation::hard(q * MS, p * MS).unwrap();
        self.policy
            .set_reservation(vcpu, reservation, self.now)
            .unwrap();
    }

    fn is_reduced(&self, vcpu: VcpuId) -> bool {
        self.policy.view(vcpu).unwrap().reduced.is_some()
    }

    /// A best-effort vCPU of `guest` that is pinned to `cpu`.
    fn best_effort_in(&mut self, guest: GuestId, cpu: u32) -> VcpuId {
        let own = CpuSet::only(CpuId(cpu));
        let params = SchedParams::BestEffort { weight: 100 };
        self.policy.add_vcpu(guest, params, Some(own)).unwrap()
    }

    fn best_effort_on(&mut self, cpu: u32) -> VcpuId {
        let guest = self.guest();
        self.best_effort_in(guest, cpu)
    }
}

#[test]
fn what_ran_on_a_cpu_that_leaves_goes_on_elsewhere_and_nothing_runs_there() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.best_effort(g, 100));
    p.wake(a);
    assert_eq!((p.pick(0), p.pick(1)), (Some((a, a)), None));
    p.wake(b);
    assert_eq!(p.pick(1), Some((b, b)));
    p.kicks();
    assert!(p.offline(1));
    assert_eq!(p.kicks(), [1]);
    p.run(1, 10 * US, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), None);
    assert_eq!(p.kicks(), [0], "it ran without a slice");
    assert_eq!(p.counters(b).preemptions, 1);
    p.stop(0, StopReason::Preempted, quiet());
    assert!(p.decide(0).unwrap().until.is_some(), "the two share it");
    assert_eq!(p.pick(1), None, "and it stays offline");
}

#[test]
fn a_cpu_that_goes_online_is_kicked_for_what_waits() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.best_effort(g, 100));
    p.offline(1);
    p.wake(a);
    p.wake(b);
    assert_eq!((p.pick(0), p.pick(1)), (Some((a, a)), None));
    p.kicks();
    assert!(p.online(1));
    assert_eq!(p.kicks(), [1]);
    assert_eq!(p.pick(1), Some((b, b)));
    assert!(!p.online(1), "it was not offline");
}

#[test]
fn the_last_cpu_stays_online_and_one_that_is_offline_does_not_go_offline_again() {
    let mut p = Pool::new(2);
    assert!(p.offline(0));
    assert!(!p.offline(0) && !p.offline(1) && !p.offline(7));
    assert!(p.policy.online_cpus().contains(CpuId(1)));
}

#[test]
fn guests_keep_their_reservations_in_their_order_as_far_as_these_fit() {
    let mut p = Pool::new(2);
    let [first, second, third] = [(); 3].map(|()| p.guest());
    let a = p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    let c = p.hard(third, 1, 10);
    assert!(p.offline(1));
    assert_eq!(p.in_force(a), (8 * MS, 10 * MS));
    assert_eq!(p.in_force(c), (MS, 10 * MS), "it fits beside the first");
    assert!(p.is_reduced(b));
    let (budget, _) = p.in_force(b);
    let expected = 899 * US..=901 * US;
    assert!(expected.contains(&budget), "99 - 80 - 10 %: {budget}");
    p.online(1);
    assert_eq!(p.in_force(b), (8 * MS, 10 * MS));
    assert!(!p.is_reduced(b));
}

#[test]
fn the_reservations_of_one_guest_are_kept_together_or_reduced_by_the_same_part() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let large = p.hard(g, 9, 10);
    let small = p.hard(g, 2, 10);
    p.offline(0);
    let of = |(budget, _), whole: u64| budget as f64 / (whole * MS) as f64;
    let parts = (of(p.in_force(large), 9), of(p.in_force(small), 2));
    assert!((parts.0 - 0.9).abs() < 1e-4, "99 % of 110 %: {parts:?}");
    assert!((parts.0 - parts.1).abs() < 1e-4, "{parts:?}");
}

#[test]
fn with_all_cpus_online_nothing_is_reduced_because_a_change_is_still_pending() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let (large, other) = (p.hard(g, 9, 10), p.hard(g, 9, 10));
    p.wake(large);
    p.wake(other);
    p.pick(0);
    p.pick(1);
    p.pass(MS);
    p.shrink(large, 1, 10);
    p.now = 10 * MS;
    p.policy.free_held_bandwidth(p.now);
    let late = p.guest();
    let late = p.hard(late, 9, 10);
    p.offline(1);
    p.online(1);
    assert!([large, other, late].iter().all(|&v| !p.is_reduced(v)));
}

#[test]
fn a_vcpu_that_sleeps_counts_with_its_smaller_reservation_when_its_period_is_over() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    let (large, other) = (p.hard(first, 8, 10), p.hard(second, 8, 10));
    p.wake(large);
    p.pick(0);
    p.run(0, MS, StopReason::Halted(None), quiet());
    p.shrink(large, 1, 10);
    p.offline(1);
    assert!(p.is_reduced(other), "8 in 10 are in force until 10");
    p.now = 10 * MS;
    p.policy.free_held_bandwidth(p.now);
    assert!(!p.is_reduced(other));
}

#[test]
fn best_effort_gives_way_before_a_reservation_does() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    let a = p.hard(first, 6, 10);
    let b = p.hard(second, 38, 100);
    p.offline(1);
    assert!(
        !p.is_reduced(a) && !p.is_reduced(b),
        "98 %, where 95 are admitted"
    );
}

#[test]
fn when_a_guest_ends_while_a_cpu_is_offline_others_get_their_reservations_back() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    let a = p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    p.offline(1);
    p.now += 7 * MS;
    p.policy.remove(a, p.now);
    assert_eq!(p.in_force(b), (8 * MS, 10 * MS));
    assert_eq!(p.counters(b).reduced_ns, 7 * MS);
    let c = p.hard(second, 1, 10);
    p.online(1);
    p.hard(first, 9, 10);
    p.offline(0);
    assert!(p.is_reduced(b) && p.is_reduced(c));
    p.now += MS;
    p.policy.remove(c, p.now);
    assert_eq!(p.counters(c).reduced_ns, MS, "it counts until its end");
}

#[test]
fn no_new_reservation_is_taken_that_does_not_fit_on_the_cpus_that_are_left() {
    let mut p = Pool::new(2);
    let g = p.guest();
    p.hard(g, 5, 10);
    p.offline(1);
    let params = |q| SchedParams::Reserved(Reservation::hard(q * MS, 10 * MS).unwrap());
    assert!(p.policy.add_vcpu(g, params(5), None).is_err());
    assert!(p.policy.add_vcpu(g, params(4), None).is_ok());
}

#[test]
fn a_reduced_reservation_that_runs_is_stopped_when_its_smaller_budget_is_used_up() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    let a = p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    p.wake(b);
    assert_eq!(p.decide(0).unwrap().until, Some(8 * MS));
    p.offline(1);
    assert!(p.kicks().contains(&0), "its decision was made for 8 ms");
    p.run(0, MS, StopReason::Preempted, quiet());
    let until = p.decide(0).unwrap().until.unwrap();
    assert!(
        (until / US).abs_diff(1_900 - 100) < 10 || until < 2 * MS,
        "{until}"
    );
    assert_eq!(p.policy.view(a).unwrap().doing, Doing::Halted);
}

#[test]
fn what_a_vcpu_has_run_before_its_reservation_shrinks_is_no_debt() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    p.wake(b);
    p.pick(0);
    p.pass(5 * MS);
    p.offline(1);
    p.stop(0, StopReason::Preempted, quiet());
    let (_, budget, _) = p.policy.view(b).unwrap().reserved.unwrap();
    assert!(budget > 1_890_000, "{budget}");
}

#[test]
fn a_throttled_one_gets_its_budget_when_its_debt_is_paid_off_at_the_new_rate() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    p.wake(b);
    p.pick(0);
    // 2 ms of debt.
    p.run(0, 10 * MS - US, StopReason::Preempted, quiet());
    p.pick(0);
    assert_eq!(p.policy.next_timer(), Some(10 * MS));
    p.offline(1);
    assert_eq!(p.policy.next_timer(), Some(20 * MS), "1.9 ms a period");
    p.online(1);
    assert_eq!(p.policy.next_timer(), Some(10 * MS));
}

#[test]
fn debt_is_paid_off_at_the_whole_rate_up_to_the_reduction() {
    let mut p = Pool::new(2);
    let [first, second] = [(); 2].map(|()| p.guest());
    p.hard(first, 8, 10);
    let b = p.hard(second, 8, 10);
    p.wake(b);
    p.pick(0);
    p.run(0, 8 * MS, StopReason::Preempted, quiet());
    p.policy.charge_elsewhere(b, CpuTime(20 * MS), p.now);
    assert_eq!(p.policy.next_timer(), Some(30 * MS));
    p.now = 25 * MS;
    p.offline(1);
    assert_eq!(
        p.policy.next_timer(),
        Some(50 * MS),
        "4 of 20 remain, for which it gets 1.9 ms a period"
    );
}

#[test]
fn a_sleeper_that_is_reduced_by_less_takes_a_cpu_when_its_timer_is_due() {
    let mut p = Pool::new(2);
    let [first, second, third] = [(); 3].map(|()| p.guest());
    let (other, leaves) = (p.hard(first, 40, 100), p.hard(second, 50, 100));
    let small = SchedParams::Reserved(Reservation::hard(10 * US, 25 * MS).unwrap());
    let sleeper = p.policy.add_vcpu(third, small, None).unwrap();
    p.hard(third, 80, 100);
    p.wake(sleeper);
    p.pick(0);
    p.stop(0, StopReason::Halted(Some(26 * MS)), quiet());
    p.offline(1);
    assert_eq!(p.pick(1), None);
    p.wake(other);
    let until = |p: &mut Pool| p.decide(0).and_then(|decision| decision.until);
    assert_eq!(
        until(&mut p),
        Some(40 * MS),
        "10 us in 225 ms are less urgent"
    );
    p.kicks();
    p.policy.remove(leaves, p.now);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(until(&mut p), Some(26 * MS));
}

#[test]
fn a_vcpu_whose_own_cpus_are_all_offline_runs_elsewhere_until_one_is_online() {
    let mut p = Pool::new(2);
    let v = p.best_effort_on(1);
    p.wake(v);
    assert_eq!(p.pick(0), None);
    assert_eq!(p.pick(1), Some((v, v)));
    p.offline(1);
    p.run(1, US, StopReason::Preempted, quiet());
    assert_eq!(p.kicks(), [0, 1]);
    assert_eq!(p.pick(1), None);
    assert!(p.policy.view(v).unwrap().displaced);
    assert_eq!(p.pick(0), Some((v, v)));
    p.online(1);
    assert_eq!(p.kicks(), [0, 1], "it goes back to its own CPU");
    assert_eq!(p.pick(1), None, "it still runs on 0");
    p.run(0, US, StopReason::Preempted, quiet());
    assert_eq!(p.kicks(), [1]);
    assert_eq!((p.pick(0), p.pick(1)), (None, Some((v, v))));
}

#[test]
fn queues_that_meet_again_share_from_there_and_none_catches_up() {
    let mut p = Pool::new(2);
    let [zero, one] = [0, 1].map(|cpu| p.best_effort_on(cpu));
    p.wake(zero);
    assert_eq!(p.pick(0), Some((zero, zero)));
    // A second on CPU 0, in which the other vCPU slept.
    p.run(0, 1_000 * MS, StopReason::Preempted, quiet());
    p.offline(1);
    p.wake(one);
    let mut ran = [0; 2];
    for _ in 0..20 {
        let (_, curr) = p.pick(0).unwrap();
        ran[usize::from(curr == one)] += 1;
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    assert!((9..=11).contains(&ran[0]), "{ran:?}");
}

#[test]
fn waiters_for_a_holder_on_a_cpu_that_goes_offline_are_served_elsewhere() {
    for hints in [spins_on as fn(VcpuId) -> _, sleeps_on] {
        let mut p = Pool::new(2);
        let g = p.guest();
        let holder = p.best_effort(g, 100);
        let waiter = p.hard(g, 5, 10);
        p.preempt_holder(holder, 1);
        let blocks = hints(holder);
        p.wake(waiter);
        assert_eq!(p.pick(1), Some((waiter, waiter)));
        let why = match blocks.wait.unwrap().kind {
            vcpu_sched::WaitKind::Spin => StopReason::Rang,
            vcpu_sched::WaitKind::Block => StopReason::Halted(None),
            vcpu_sched::WaitKind::Suspect => unreachable!("no guest publishes it"),
        };
        p.stop(1, why, blocks);
        assert_eq!(p.pick(1), Some((waiter, holder)), "carried");
        p.offline(1);
        p.run(1, US, StopReason::Preempted, holding());
        assert_eq!(p.pick(1), None);
        p.kicks();
        assert_eq!(p.pick(0), Some((waiter, holder)), "carried on");
    }
}

#[test]
fn timers_of_a_timekeeper_that_goes_offline_are_kept_by_another_cpu() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v = p.best_effort(g, 100);
    p.wake(v);
    assert_eq!(p.pick(0), Some((v, v)));
    p.stop(0, StopReason::Halted(Some(5 * MS)), quiet());
    assert_eq!((p.pick(0), p.pick(1)), (None, None));
    p.kicks();
    p.offline(0);
    assert_eq!(p.pick(0), None);
    assert!(!p.kicks().contains(&1), "it sleeps until then, too");
    p.online(0);
    p.pick(0);
    p.kicks();
    p.offline(1);
    p.pick(1);
    p.pass(5 * MS);
    assert_eq!(p.pick(0), Some((v, v)));
}

#[test]
fn a_worker_on_a_cpu_that_goes_offline_is_stopped_and_granted_another() {
    let mut p = Pool::new(2);
    let g = p.guest();
    p.best_effort(g, 100);
    let worker = p.policy.add_worker(g);
    assert_eq!((p.pick(0), p.pick(1)), (None, None));
    p.policy.worker_ready(worker, p.now);
    let order = p.policy.take_worker_orders().next();
    let Some(WorkerOrder::Work(grant)) = order else {
        panic!("{order:?}");
    };
    p.policy.cpu_offline(grant.cpu, p.now);
    let order = p.policy.take_worker_orders().next();
    assert_eq!(order, Some(WorkerOrder::Stop(worker)));
    p.policy.worker_stopped(worker, CpuTime(US), p.now);
    p.policy.worker_ready(worker, p.now);
    let order = p.policy.take_worker_orders().next();
    let Some(WorkerOrder::Work(again)) = order else {
        panic!("{order:?}");
    };
    assert_ne!(again.cpu, grant.cpu);
}

#[test]
fn reservations_pinned_to_a_cpu_that_is_offline_count_on_those_that_are_online() {
    let mut p = Pool::with(Config::new(3));
    let [first, second, third] = [(); 3].map(|()| p.guest());
    let a = p.hard_on(first, 6, 10, Some(&[0]));
    let b = p.hard_on(second, 6, 10, Some(&[1]));
    let c = p.hard_on(third, 9, 10, Some(&[2]));
    p.offline(1);
    assert!(!p.is_reduced(a) && p.is_reduced(c) != p.is_reduced(b));
    assert!(
        p.is_reduced(c),
        "6 + 6 are kept of 19, and 9 do not fit beside"
    );
}

#[test]
fn a_holder_that_was_carried_on_another_cpu_is_offered_to_its_own_when_that_is_online() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let holder = p.best_effort_in(g, 1);
    let waiter = p.hard_on(g, 5, 10, Some(&[0]));
    p.offline(1);
    assert_eq!(p.pick(1), None);
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)), "carried");
    p.online(1);
    assert_eq!(p.kicks(), [0, 1]);
    assert_eq!(p.pick(1), None, "it still runs on 0");
    p.release(0, None);
    p.run(0, US, StopReason::Rang, quiet());
    assert_eq!(p.kicks(), [1]);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    assert_eq!(p.pick(1), Some((holder, holder)));
}
