//! EDF and the constant bandwidth server on one CPU.

use crate::{MS, hard, soft};
use vcpu_sched::sim::{Costs, Script, Simulation, SplitMix64, Step};
use vcpu_sched::{Config, Ns, SchedParams};

/// All periods divide this one, so utilisation can be summed without rounding.
const HYPERPERIOD: Ns = 720 * MS;
const PERIODS: [Ns; 8] = [4, 5, 6, 8, 9, 10, 12, 40];

fn whole_cpu() -> Config {
    Config {
        cap_permille: 1000,
        ..Config::new(1)
    }
}

/// A random set of (budget, period) that leaves exactly `rest` thousandths of the CPU.
fn task_set(random: &mut SplitMix64, rest: u64) -> Vec<(Ns, Ns)> {
    let tasks = random.within(2, 8);
    let mut free = HYPERPERIOD / 1000 * (1000 - rest);
    let mut set = Vec::new();
    for left in (1..=tasks).rev() {
        let period = PERIODS[random.below(8) as usize] * MS;
        let jobs = HYPERPERIOD / period;
        let fair = free / jobs / left;
        // The last takes all that is left.
        let budget = if left == 1 {
            free / jobs
        } else {
            random.within(fair / 4, fair * 3 / 2)
        };
        let budget = budget.clamp(10_000, period);
        if budget * jobs <= free {
            free -= budget * jobs;
            set.push((budget, period));
        }
    }
    set
}

#[test]
fn feasible_set_misses_no_deadline() {
    for seed in 0..200 {
        let set = task_set(&mut SplitMix64::new(seed), 0);
        let mut sim = Simulation::with_events(whole_cpu(), Costs::default(), ());
        let guest = sim.guest();
        for &(budget, period) in &set {
            let job = Script::forever([Step::Compute(budget), Step::NextPeriod(period)]);
            sim.vcpu(guest, hard(budget, period), job).unwrap();
        }
        let outcome = sim.run(HYPERPERIOD);
        assert_eq!(outcome.deadline_misses(), 0, "seed {seed}: {set:?}");
        for (vcpu, (budget, period)) in outcome.vcpus.iter().zip(&set) {
            let jobs = HYPERPERIOD / period;
            assert_eq!(vcpu.counters.runtime_ns, jobs * budget, "seed {seed}");
            assert_eq!(vcpu.passes, jobs - 1, "seed {seed}: every job is done");
        }
    }
}

#[test]
fn set_that_needs_more_than_the_cpu_does_miss_deadlines() {
    // The test above can fail: without admission control this set is taken, and misses.
    let mut sim = Simulation::with_events(Config::new(1), Costs::default(), ());
    let guest = sim.guest();
    sim.vcpu(guest, hard(5 * MS, 10 * MS), Script::hog())
        .unwrap();
    assert!(
        sim.vcpu(guest, hard(5 * MS, 10 * MS), Script::hog())
            .is_err()
    );

    let costs = Costs {
        switch_ns: MS,
        ..Costs::default()
    };
    let mut sim = Simulation::with_events(whole_cpu(), costs, ());
    let guest = sim.guest();
    for _ in 0..2 {
        let job = Script::forever([Step::Compute(5 * MS), Step::NextPeriod(10 * MS)]);
        sim.vcpu(guest, soft(5 * MS, 10 * MS), job).unwrap();
    }
    let outcome = sim.run(HYPERPERIOD);
    assert!(
        outcome.vcpus.iter().any(|vcpu| vcpu.passes < 71),
        "switching costs more than what is left"
    );
}

#[test]
fn overrunning_soft_vcpu_makes_no_other_miss() {
    for seed in 0..100 {
        let mut random = SplitMix64::new(seed);
        let set = task_set(&mut random, 300);
        let mut sim = Simulation::with_events(whole_cpu(), Costs::default(), ());
        let guest = sim.guest();
        let period = random.within(1, 50) * MS;
        let greedy = sim
            .vcpu(guest, soft(period / 10 * 3, period), Script::hog())
            .unwrap();
        for &(budget, period) in &set {
            let job = Script::forever([Step::Compute(budget), Step::NextPeriod(period)]);
            sim.vcpu(guest, hard(budget, period), job).unwrap();
        }
        let outcome = sim.run(HYPERPERIOD);
        for (vcpu, (_, period)) in outcome.vcpus[1..].iter().zip(&set) {
            assert_eq!(vcpu.counters.deadline_misses, 0, "seed {seed}: {set:?}");
            assert_eq!(vcpu.passes, HYPERPERIOD / period - 1, "seed {seed}");
        }
        let used: Ns = outcome.vcpus.iter().map(|v| v.counters.runtime_ns).sum();
        assert_eq!(used, HYPERPERIOD, "it gets all that the others leave");
        assert!(outcome.vcpu(greedy).counters.runtime_ns >= HYPERPERIOD / 1000 * 299);
    }
}

#[test]
fn hard_vcpu_never_gets_more_than_its_share_even_of_an_idle_cpu() {
    let mut sim = Simulation::with_events(whole_cpu(), Costs::default(), ());
    let guest = sim.guest();
    let vcpu = sim
        .vcpu(guest, hard(3 * MS, 10 * MS), Script::hog())
        .unwrap();
    let outcome = sim.run(1_000 * MS);
    assert_eq!(outcome.vcpu(vcpu).counters.runtime_ns, 300 * MS);
    assert_eq!(outcome.vcpu(vcpu).counters.throttles, 100);
}

#[test]
fn each_budget_of_a_feasible_set_is_delivered_and_what_costs_leave_no_room_for_is_lost() {
    let hogs = |set: &[(Ns, Ns)], switch_ns| {
        let costs = Costs {
            switch_ns,
            ..Costs::default()
        };
        let mut sim = Simulation::with_events(whole_cpu(), costs, ());
        let guest = sim.guest();
        for &(budget, period) in set {
            sim.vcpu(guest, hard(budget, period), Script::hog())
                .unwrap();
        }
        sim.run(HYPERPERIOD)
    };
    for seed in 0..50 {
        let set = task_set(&mut SplitMix64::new(seed), 0);
        for (vcpu, (budget, period)) in hogs(&set, 0).vcpus.iter().zip(&set) {
            let c = &vcpu.counters;
            assert_eq!(c.delivered_ns, c.charged_ns, "seed {seed}");
            // The period that begins at the end is promised, too.
            let promised = HYPERPERIOD / period * budget;
            assert!(c.promised_ns - promised <= *budget, "seed {seed}: {c:?}");
            assert_eq!((c.lost_to_host_ns, c.lost_to_overcommit_ns), (0, 0));
        }
    }
}

#[test]
fn what_a_feasible_set_loses_while_the_host_stops_it_is_lost_to_the_host() {
    for seed in 0..100 {
        let mut random = SplitMix64::new(seed);
        let set = task_set(&mut random, 300);
        let mut sim = Simulation::with_events(whole_cpu(), Costs::default(), ());
        let guest = sim.guest();
        for &(budget, period) in &set {
            sim.vcpu(guest, hard(budget, period), Script::hog())
                .unwrap();
        }
        let from = random.below(HYPERPERIOD / 2);
        sim.stop_host(from, from + 200 * MS);
        let outcome = sim.run(HYPERPERIOD);
        for (vcpu, (budget, period)) in outcome.vcpus.iter().zip(&set) {
            let c = &vcpu.counters;
            assert_eq!(c.lost_to_overcommit_ns, 0, "seed {seed}: {c:?}");
            // Of the periods in which the host stopped, all but the first and the last.
            let whole = 200 * MS / period - 1;
            assert!(c.deadline_misses >= whole, "seed {seed}: {c:?}");
            assert!(c.lost_to_host_ns >= whole * budget, "seed {seed}: {c:?}");
            let periods = c.promised_ns / budget;
            assert!(
                periods.abs_diff(HYPERPERIOD / period) <= 2,
                "seed {seed}: {c:?}"
            );
        }
    }
}

#[test]
fn what_kicks_that_come_too_late_cost_is_lost_to_overcommit() {
    let costs = Costs {
        kick_ns: 7 * MS,
        ..Costs::default()
    };
    let mut sim = Simulation::with_events(whole_cpu(), costs, ());
    let guest = sim.guest();
    let job = Script::forever([Step::Compute(3 * MS), Step::Halt]);
    let late = sim.vcpu(guest, hard(5 * MS, 8 * MS), job).unwrap();
    for at in 1..30 {
        sim.wake_at(late, at * 20 * MS);
    }
    let params = SchedParams::BestEffort { weight: 100 };
    sim.vcpu(guest, params, Script::hog()).unwrap();
    let outcome = sim.run(HYPERPERIOD);
    let c = &outcome.vcpu(late).counters;
    assert!(c.deadline_misses > 0, "{c:?}");
    assert!(c.lost_to_overcommit_ns > 0, "{c:?}");
    assert_eq!(c.lost_to_host_ns, 0, "{c:?}");
}
