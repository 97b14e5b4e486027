//! What the policy promises over time, shown in the simulator. All times are virtual, so nothing
//! here depends on the machine.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod changes;
mod deadlines;
mod hotplug;
mod inversion;
mod isolation;
mod policies;
mod random_pools;

use vcpu_sched::{Ns, Reservation, SchedParams};

const US: Ns = 1_000;
const MS: Ns = 1_000_000;

fn hard(budget: Ns, period: Ns) -> SchedParams {
    SchedParams::Reserved(Reservation::hard(budget, period).unwrap())
}

fn soft(budget: Ns, period: Ns) -> SchedParams {
    SchedParams::Reserved(Reservation::soft(budget, period).unwrap())
}
