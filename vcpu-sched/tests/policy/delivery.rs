//! What was promised, and what came of it: delivered, lost to the host, lost to overcommit, or not demanded.

use crate::pool::{MS, Pool, holding, quiet, spins_on};
use vcpu_sched::{
    Counters, CpuId, CpuSet, CpuTime, Ns, Reservation, SchedParams, StopReason, VcpuId,
};

/// Of one vCPU, in milliseconds.
#[derive(Debug, PartialEq, Eq)]
struct Delivery {
    promised: Ns,
    delivered: Ns,
    host: Ns,
    overcommit: Ns,
    undemanded: Ns,
}

impl Delivery {
    fn of(c: &Counters) -> Self {
        Self {
            promised: c.promised_ns / MS,
            delivered: c.delivered_ns / MS,
            host: c.lost_to_host_ns / MS,
            overcommit: c.lost_to_overcommit_ns / MS,
            undemanded: c.undemanded_ns / MS,
        }
    }
}

impl Pool {
    fn delivery(&self, vcpu: VcpuId) -> Delivery {
        Delivery::of(&self.counters(vcpu))
    }

    /// `vcpu` is on `cpu`, has used `ran` of the time since it was picked, and stops.
    fn robbed(&mut self, cpu: u32, vcpu: VcpuId, ran: Ns, wall: Ns) {
        self.pass(wall);
        self.policy.host_took(vcpu, CpuTime(wall - ran));
        let cpu = CpuId(cpu);
        let (why, ran) = (StopReason::Preempted, CpuTime(ran));
        self.policy.stop(cpu, why, quiet(), ran, self.now);
    }
}

#[test]
fn a_budget_that_is_used_up_by_its_deadline_is_delivered_and_one_is_promised_in_each_period() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 3, 10);
    p.wake(vcpu);
    for period in 1..=5 {
        assert_eq!(p.pick(0), Some((vcpu, vcpu)));
        p.run(0, 3 * MS, StopReason::Preempted, quiet());
        assert_eq!(p.pick(0), None, "throttled");
        let d = p.delivery(vcpu);
        assert_eq!((d.promised, d.delivered), (3 * period, 3 * period));
        p.pass(7 * MS);
    }
    let counted = p.counters(vcpu);
    assert_eq!(counted.throttled_wait_ns, 28 * MS, "no part of the promise");
    assert_eq!(counted.deadline_misses, 0);
}

#[test]
fn what_a_vcpu_runs_beyond_its_budget_is_delivered_of_the_next_one() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 3, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 4 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.delivery(vcpu).delivered, 3);
    p.pass(6 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    let d = p.delivery(vcpu);
    assert_eq!((d.promised, d.delivered), (6, 6));
}

#[test]
fn what_the_host_took_from_a_vcpu_on_a_cpu_is_lost_to_the_host() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.robbed(0, vcpu, 2 * MS, 12 * MS);
    let d = p.delivery(vcpu);
    assert_eq!((d.promised, d.delivered, d.host), (10, 2, 5));
    assert_eq!((d.overcommit, d.undemanded), (0, 0));
    assert_eq!(p.counters(vcpu).deadline_misses, 1);
    // The rest of the late budget is delivered for the period at hand.
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 3 * MS, StopReason::Preempted, quiet());
    let d = p.delivery(vcpu);
    assert_eq!((d.promised, d.delivered, d.host), (10, 5, 5));
    assert_eq!(p.counters(vcpu).deadline_misses, 1);
}

#[test]
fn the_part_of_a_run_before_the_deadline_is_delivered() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    p.pass(8 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 5 * MS, StopReason::Preempted, quiet());
    let d = p.delivery(vcpu);
    assert_eq!(
        (d.promised, d.overcommit),
        (10, 3),
        "2 ms of it came in time"
    );
    assert_eq!(
        d.delivered, 5,
        "and 3 ms for the period that began at 10 ms"
    );
}

#[test]
fn deadlines_that_pass_while_the_host_stops_all_are_missed_by_a_throttled_vcpu_too() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 5 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), None, "throttled until 10 ms");
    p.pass(1_200 * MS);
    // If the run ends just then, no CPU picks any more.
    let at_the_end = p.policy.counters_at(vcpu, p.now);
    assert_eq!(at_the_end.deadline_misses, 119);
    let mut removed = p.policy.clone();
    removed.remove(vcpu, p.now);
    assert_eq!(removed.counters(vcpu).deadline_misses, 119);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    let counted = p.counters(vcpu);
    assert_eq!(counted.deadline_misses, 119, "20, 30, .., 1200");
    let d = Delivery::of(&counted);
    assert_eq!(
        (d.host, d.overcommit),
        (119 * 5, 0),
        "the executor woke late"
    );
    assert_eq!((d.promised, d.delivered), (121 * 5, 5));
}

#[test]
fn a_vcpu_that_sleeps_while_it_is_throttled_and_the_host_stops_all_has_missed_nothing() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 5 * MS, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
    p.pass(1_200 * MS);
    assert_eq!(p.pick(0), None);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    assert_eq!(p.counters(vcpu).deadline_misses, 0);
}

#[test]
fn deadlines_after_a_wake_up_time_that_the_host_let_pass_are_missed() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, MS, StopReason::Halted(Some(100 * MS)), quiet());
    assert_eq!(p.pick(0), None);
    p.pass(134 * MS);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    let d = p.delivery(vcpu);
    assert_eq!(
        (d.host, d.undemanded),
        (15, 4),
        "the periods to 110, 120 and 130 ms"
    );
    assert_eq!(p.counters(vcpu).deadline_misses, 3);
}

#[test]
fn what_others_ran_instead_is_lost_to_overcommit() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let other = p.best_effort(guest, 100);
    let late = p.hard(guest, 5, 10);
    p.wake(other);
    assert_eq!(p.pick(0), Some((other, other)));
    p.wake(late);
    // The CPU does not answer its kick in time.
    p.run(0, 12 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((late, late)));
    let d = p.delivery(late);
    assert_eq!((d.host, d.overcommit, d.undemanded), (0, 5, 0));
    let counted = p.counters(late);
    assert_eq!(counted.deadline_misses, 1);
    assert_eq!((counted.waited_ns, counted.throttled_wait_ns), (12 * MS, 0));
}

#[test]
fn a_budget_is_lost_to_the_host_only_as_far_as_the_host_took_time_from_its_cpus() {
    let mut p = Pool::new(2);
    let guest = p.guest();
    let [other, elsewhere] = [0, 1].map(|cpu| {
        let own = Some(CpuSet::only(CpuId(cpu)));
        let params = SchedParams::BestEffort { weight: 100 };
        p.policy.add_vcpu(guest, params, own).unwrap()
    });
    let late = p.hard_on(guest, 5, 10, Some(&[0]));
    p.wake(other);
    p.wake(elsewhere);
    assert_eq!(p.pick(0), Some((other, other)));
    assert_eq!(p.pick(1), Some((elsewhere, elsewhere)));
    p.wake(late);
    p.policy.host_took(elsewhere, CpuTime(7 * MS));
    p.robbed(0, other, 10 * MS, 12 * MS);
    assert_eq!(p.pick(0), Some((late, late)));
    let d = p.delivery(late);
    assert_eq!((d.host, d.overcommit), (2, 3));
}

#[test]
fn what_a_vcpu_leaves_when_it_sleeps_was_not_demanded() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 2 * MS, StopReason::Halted(None), quiet());
    assert_eq!(p.pick(0), None);
    p.pass(98 * MS);
    p.wake(vcpu);
    let d = p.delivery(vcpu);
    assert_eq!((d.promised, d.delivered, d.undemanded), (10, 2, 3));
    assert_eq!((d.host, d.overcommit), (0, 0));
}

#[test]
fn a_budget_that_carries_another_vcpu_is_delivered_and_that_vcpu_demands_none() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let holder = p.hard(guest, 2, 20);
    let soft = SchedParams::Reserved(Reservation::soft(5 * MS, 10 * MS).unwrap());
    let waiter = p.policy.add_vcpu(guest, soft, None).unwrap();
    p.preempt_holder(holder, 0);
    p.ring(waiter, 0, spins_on(holder));
    assert_eq!(p.pick(0), Some((waiter, holder)));
    p.run(0, 30 * MS, StopReason::Preempted, holding());
    let (of_waiter, of_holder) = (p.delivery(waiter), p.delivery(holder));
    assert_eq!(of_waiter.delivered, 30);
    assert_eq!((of_holder.delivered, of_holder.undemanded), (0, 2));
    assert_eq!((of_holder.host, of_holder.overcommit), (0, 0));
}

#[test]
fn what_a_reservation_is_reduced_by_while_host_cpus_are_away_is_lost_to_the_host() {
    let mut p = Pool::new(2);
    let guest = p.guest();
    let kept = p.hard(guest, 9, 10);
    let guest = p.guest();
    let reduced = p.hard(guest, 8, 10);
    p.policy.cpu_offline(CpuId(1), p.now);
    p.wake(kept);
    p.wake(reduced);
    let counted = p.counters(reduced);
    assert_eq!(counted.promised_ns, 8 * MS);
    let view = p.policy.view(reduced).unwrap();
    let in_force = view.reduced.unwrap().0.budget();
    assert!(in_force < 8 * MS, "{in_force}");
    let lost = counted.lost_to_host_ns;
    assert!(lost.abs_diff(8 * MS - in_force) <= 1, "{lost}, {in_force}");
    assert_eq!(p.counters(kept).lost_to_host_ns, 0);
}

#[test]
fn a_vcpu_that_has_a_weight_instead_of_its_reservation_is_promised_nothing_more() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, MS, StopReason::Preempted, quiet());
    p.policy.set_weight(vcpu, 100, p.now).unwrap();
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 50 * MS, StopReason::Preempted, quiet());
    let d = p.delivery(vcpu);
    assert_eq!((d.promised, d.delivered, d.undemanded), (5, 1, 4));
}

#[test]
fn a_vcpu_that_has_caught_up_misses_the_deadlines_after_the_one_that_it_kept() {
    let mut p = Pool::new(1);
    let guest = p.guest();
    let vcpu = p.hard(guest, 5, 10);
    p.wake(vcpu);
    p.pass(10 * MS);
    // The late budget and a part of the next one, both in the period that begins at 10 ms.
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    p.run(0, 6 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((vcpu, vcpu)));
    assert_eq!(p.counters(vcpu).deadline_misses, 1);
    p.robbed(0, vcpu, 0, 200 * MS);
    let counted = p.counters(vcpu);
    assert_eq!(counted.deadline_misses, 1 + 19, "30, 40, .., 210");
    assert_eq!(Delivery::of(&counted).delivered, 5);
}
