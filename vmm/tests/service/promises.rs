//! What the scheduler's counters of a guest must add up to.

use serde_json::Value;

use crate::common::number;

use super::pool::ServicePool;

/// A vCPU with a hard reservation, which always has work.
pub const HARD: [&str; 4] = [
    "--reservation",
    "3ms/10ms,hard",
    "--cmdline",
    "workload=hog seconds=0",
];
/// Its budget, ns.
const BUDGET: u64 = 3_000_000;

/// Asserts that the counters of all guests add up. Returns the vCPU of the guest `hard`, which has [`HARD`].
pub fn assert_counters_add_up(pool: &ServicePool, hard: &str) -> Value {
    let snapshot = pool.snapshot();
    let vcpus = snapshot["vcpus"].as_array().expect("vCPUs");
    for name in pool.names() {
        let own = || vcpus.iter().filter(|vcpu| vcpu["guest"] == *name);
        let sum = |key: &str| -> u64 { own().map(|vcpu| number(vcpu, key)).sum() };
        let used = sum("ran_ns") + sum("elsewhere_ns");
        assert_eq!(used, sum("charged_ns"), "{snapshot:#}");
        assert_eq!(sum("donated_ns"), sum("received_ns"), "{snapshot:#}");
    }
    let mut of_hard = vcpus.iter().filter(|vcpu| vcpu["guest"] == *hard);
    let vcpu = of_hard.next().expect("the vCPU").clone();
    let kept = number(&vcpu, "delivered_ns") + number(&vcpu, "undemanded_ns");
    let lost = number(&vcpu, "lost_to_host_ns") + number(&vcpu, "lost_to_overcommit_ns");
    let at_hand = number(&vcpu, "promised_ns").checked_sub(kept + lost);
    assert!(
        at_hand.is_some_and(|left| left <= BUDGET),
        "only the budget at hand is left: {vcpu:#}"
    );
    vcpu
}

/// Prints what was promised to `vcpu`, and what came of it.
pub fn print(vcpu: &Value) {
    let ms = |key: &str| number(vcpu, key) / 1_000_000;
    println!(
        "promised {} ms, delivered {} ms, lost to the host {} ms, to overcommit {} ms, not demanded {} ms",
        ms("promised_ns"),
        ms("delivered_ns"),
        ms("lost_to_host_ns"),
        ms("lost_to_overcommit_ns"),
        ms("undemanded_ns")
    );
}
