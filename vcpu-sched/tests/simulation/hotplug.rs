//! One of two CPUs is offline for a while: which vCPU gets what is left.

use crate::{MS, hard, soft};
use vcpu_sched::sim::{Costs, Outcome, Script, Simulation, Step};
use vcpu_sched::{Config, CpuId, Ns, SchedParams};

/// A second with both CPUs, ten with one, and a second with both.
const OFFLINE: (Ns, Ns) = (1_000 * MS, 11_000 * MS);
const END: Ns = 12_000 * MS;

/// Hogs with these parameters, each in a guest of its own.
fn hogs(params: &[SchedParams]) -> Outcome<()> {
    let mut sim = Simulation::with_events(Config::new(2), Costs::default(), ());
    for &params in params {
        let guest = sim.guest();
        sim.vcpu(guest, params, Script::hog()).unwrap();
    }
    sim.offline(CpuId(1), OFFLINE.0, OFFLINE.1);
    sim.run(END)
}

fn ran(outcome: &Outcome<()>) -> Vec<u64> {
    let each = outcome.vcpus.iter();
    each.map(|v| v.counters.runtime_ns / MS).collect()
}

#[test]
fn the_first_of_two_guests_keeps_its_hard_reservation_and_the_second_has_the_rest() {
    let params = hard(8 * MS, 10 * MS);
    let outcome = hogs(&[params, params]);
    let ran = ran(&outcome);
    assert!((9_580..=9_610).contains(&ran[0]), "80 % of 12 s: {ran:?}");
    let expected = 2 * 800 + 1_900;
    assert!(ran[1].abs_diff(expected) < 20, "19 % of 10 s: {ran:?}");
    assert_eq!(outcome.vcpus[0].counters.deadline_misses, 0);
    assert_eq!(outcome.vcpus[1].counters.reduced_ns, OFFLINE.1 - OFFLINE.0);
}

#[test]
fn what_a_kept_soft_reservation_runs_beyond_its_budget_takes_nothing_from_a_reduced_one() {
    let params = soft(8 * MS, 10 * MS);
    let ran = ran(&hogs(&[params, params]));
    // Each has a CPU of its own for 2 s, then 80 and 19 % at least.
    assert!(
        ran[0] >= 2_000 + 7_990 && ran[1] >= 2_000 + 1_890,
        "{ran:?}"
    );
}

#[test]
fn best_effort_gives_way_first_and_is_not_starved() {
    let params = hard(6 * MS, 10 * MS);
    let ran = ran(&hogs(&[
        params,
        params,
        SchedParams::BestEffort { weight: 100 },
    ]));
    assert!(ran[0] >= 7_190 && ran[1] >= 2 * 600 + 3_880, "{ran:?}");
    // While both CPUs are online, the two others run at the same time.
    assert!(ran[2] >= 2 * 400 + 90, "{ran:?}");
}

#[test]
fn a_periodic_job_whose_reservation_is_kept_misses_no_deadline() {
    let mut sim = Simulation::with_events(Config::new(2), Costs::default(), ());
    let guest = sim.guest();
    let job = Script::forever([Step::Compute(3 * MS), Step::NextPeriod(10 * MS)]);
    let job = sim.vcpu(guest, hard(3 * MS, 10 * MS), job).unwrap();
    for _ in 0..3 {
        let guest = sim.guest();
        sim.vcpu(guest, soft(4 * MS, 10 * MS), Script::hog())
            .unwrap();
    }
    sim.offline(CpuId(0), OFFLINE.0, OFFLINE.1);
    let outcome = sim.run(END);
    assert_eq!(outcome.vcpu(job).counters.deadline_misses, 0);
    assert_eq!(outcome.vcpu(job).passes, END / (10 * MS) - 1);
}
