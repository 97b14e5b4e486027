//! What cannot be guaranteed is refused.

use crate::pool::{MS, Pool};
use vcpu_sched::{
    AdmissionError, Config, CpuId, CpuSet, MAX_PINNINGS, Reservation, SchedParams, Scheduler,
};

fn hard(q: u64, p: u64) -> SchedParams {
    SchedParams::Reserved(Reservation::hard(q * MS, p * MS).unwrap())
}

#[test]
fn reservations_up_to_the_cap_are_taken_and_the_next_one_is_refused_with_what_fits() {
    let mut p = Pool::new(2);
    let g = p.guest();
    p.hard(g, 95, 100);
    p.hard(g, 90, 100);
    let refused = p.policy.add_vcpu(g, hard(6, 100), None).unwrap_err();
    let AdmissionError::NoBandwidth {
        fitting_budget_ns, ..
    } = refused
    else {
        panic!("{refused}");
    };
    let fitting = Reservation::hard(fitting_budget_ns, 100 * MS).unwrap();
    p.policy
        .add_vcpu(g, SchedParams::Reserved(fitting), None)
        .unwrap();
}

#[test]
fn best_effort_is_always_taken() {
    let mut p = Pool::new(1);
    let g = p.guest();
    p.hard(g, 95, 100);
    p.best_effort(g, 10_000);
    p.best_effort(g, 0);
}

#[test]
fn pinning_to_no_cpu_of_the_pool_is_refused() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let elsewhere = CpuSet::only(CpuId(2));
    let refused = p.policy.add_vcpu(g, hard(1, 10), Some(elsewhere));
    assert_eq!(refused, Err(AdmissionError::NoCpu));
}

#[test]
fn more_pinnings_than_queues_are_refused_and_known_ones_still_taken() {
    let mut pool = Scheduler::new(Config::new(128));
    let g = pool.add_guest();
    let weight = SchedParams::BestEffort { weight: 1 };
    let mut pin = |cpu| pool.add_vcpu(g, weight, Some(CpuSet::only(CpuId(cpu))));
    for cpu in 0..MAX_PINNINGS as u32 {
        pin(cpu).unwrap();
    }
    let refused = pin(MAX_PINNINGS as u32);
    assert_eq!(refused, Err(AdmissionError::TooManyPinnings(MAX_PINNINGS)));
    pin(0).unwrap();
}

#[test]
fn what_a_removed_vcpu_had_can_be_reserved_again() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.hard(g, 90, 100);
    assert!(p.policy.add_vcpu(g, hard(50, 100), None).is_err());
    p.policy.remove(v, 0);
    p.policy.remove(v, 0);
    p.hard(g, 90, 100);
    assert!(
        p.policy.add_vcpu(g, hard(50, 100), None).is_err(),
        "the second removal gave nothing back"
    );
}
