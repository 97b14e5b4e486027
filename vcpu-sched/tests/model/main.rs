//! The policy, model-checked: small pools, and every order in which things can happen in them, up to a number of
//! steps.
//!
//! `docs/model-checking.md` has what is explored, how far, and what was found. `scripts/model-check` goes further than
//! these tests do.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use pool::Pool;
use search::{Limits, search};

mod action;
mod bucket;
mod model;
mod owner;
mod pool;
mod pools;
mod promises;
mod search;

/// Explores a pool to so many steps; to so many states if `MODEL_STATES` is set.
fn explore(pool: &Pool, depth: u32) {
    let states = std::env::var("MODEL_STATES").ok();
    let limits = match states.and_then(|states| states.parse().ok()) {
        Some(states) => Limits {
            depth: u32::MAX,
            states,
        },
        None => Limits {
            depth,
            states: usize::MAX,
        },
    };
    let begun = std::time::Instant::now();
    match search(pool, limits) {
        Ok(searched) => println!(
            "{{\"pool\": \"{}\", \"states\": {}, \"steps\": {}, \"depth\": {}, \"complete\": {}, \"seconds\": {}}}",
            pool.name,
            searched.states,
            searched.steps,
            searched.depth,
            searched.is_complete,
            begun.elapsed().as_secs(),
        ),
        Err(finding) => panic!(
            "{}: {}\nafter\n  {}",
            pool.name,
            finding.what,
            finding.path.join("\n  ")
        ),
    }
}

macro_rules! pools {
    ($($name:ident: $pool:ident, $depth:literal;)*) => {
        $(
            #[test]
            fn $name() {
                explore(&pools::$pool, $depth);
            }
        )*
    };
}

pools! {
    one_budget: ONE_BUDGET, 9;
    two_budgets: TWO_BUDGETS, 9;
    one_lock: ONE_LOCK, 9;
    one_mutex: ONE_MUTEX, 9;
    lock_between_cpus: LOCK_BETWEEN_CPUS, 9;
    one_change: ONE_CHANGE, 9;
    one_move: ONE_MOVE, 9;
    one_pause: ONE_PAUSE, 9;
    one_end: ONE_END, 9;
    one_worker: ONE_WORKER, 9;
    one_hotplug: ONE_HOTPLUG, 9;
    spinners_on_one_cpu: SPINNERS_ON_ONE_CPU, 4;
    sleepers_on_one_cpu: SLEEPERS_ON_ONE_CPU, 4;
    spinners_on_two_cpus: SPINNERS_ON_TWO_CPUS, 4;
    spinners_with_late_kicks: SPINNERS_WITH_LATE_KICKS, 4;
    sleepers_on_two_cpus: SLEEPERS_ON_TWO_CPUS, 4;
    inferred_on_one_cpu: INFERRED_ON_ONE_CPU, 4;
    inferred_on_two_cpus: INFERRED_ON_TWO_CPUS, 4;
    deferrals: DEFERRALS, 4;
    budgets_on_one_cpu: BUDGETS_ON_ONE_CPU, 6;
    budgets_on_two_cpus: BUDGETS_ON_TWO_CPUS, 5;
    best_effort: BEST_EFFORT, 6;
    other_reservations: OTHER_RESERVATIONS, 4;
    other_cpus: OTHER_CPUS, 4;
    ends: ENDS, 4;
    pauses: PAUSES, 4;
    workers: WORKERS, 4;
    hotplug: HOTPLUG, 4;
    steal: STEAL, 4;
}
