//! Random sequences of everything that a caller can do, against what must hold after each call.
//! `Scheduler` checks its own invariants in debug builds. Here are the promises that can be checked from
//! outside; `sim::audit` checks those about order and loss.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use vcpu_sched::{Ns, SchedParams, VcpuId};

use machine::Machine;
use ops::{Op, crowd, op, op_of_others, reservation};

mod changes;
mod hand_over;
mod invariants;
mod machine;
mod ops;

const US: Ns = 1_000;

/// With how many random sequences each property is checked. `PROPTEST_CASES` sets another number.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|cases| cases.parse().ok()).unwrap_or(4_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_local_rejects: u32::MAX,
        ..ProptestConfig::default()
    })]

    #[test]
    fn promises_hold_when_kicks_are_answered_at_once(
        cpus in 1..=4_usize,
        proxy in prop::bool::weighted(0.9),
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut machine = Machine::new(cpus, proxy, true);
        for op in crowd.into_iter().chain(ops) {
            machine.apply(op);
        }
        machine.no_vcpu_is_lost();
    }

    #[test]
    fn promises_hold_when_kicks_are_on_their_way(
        cpus in 1..=4_usize,
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut machine = Machine::new(cpus, true, false);
        for op in crowd.into_iter().chain(ops) {
            machine.apply(op);
        }
        machine.no_vcpu_is_lost();
    }

    #[test]
    fn nothing_that_best_effort_does_interrupts_a_reservation(
        cpus in 1..=3_usize,
        kicks_at_once in any::<bool>(),
        reserved in reservation(),
        others in prop::collection::vec((0..2_u32, 1..1000_u32, 0..8_u32), 1..8),
        ops in prop::collection::vec(op_of_others(), 1..120),
    ) {
        let mut machine = Machine::new(cpus, true, kicks_at_once);
        // Guest 2 has nothing else, so all that happens to it comes from other guests.
        machine.apply(Op::Add(2, reserved, 0));
        for (guest, weight, pin) in others {
            machine.apply(Op::Add(guest, SchedParams::BestEffort { weight }, pin));
        }
        machine.watched = Some(VcpuId(0));
        for op in ops {
            machine.apply(op);
        }
    }

    #[test]
    fn same_calls_make_the_same_decisions(
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let run = || {
            let mut machine = Machine::new(2, true, true);
            for op in crowd.iter().chain(&ops).cloned() {
                machine.apply(op);
            }
            machine.policy.events
        };
        prop_assert_eq!(run(), run());
    }
}
