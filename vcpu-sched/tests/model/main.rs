//! The policy, model-checked: small pools, and every order in which things can happen in them.
//!
//! `docs/model-checking.md` has what is explored, how far, and what was found. `scripts/model-check` goes further than
//! these tests do.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Instant;

use pool::Pool;
use search::search;

mod action;
mod bucket;
mod model;
mod owner;
mod pool;
mod pools;
mod promises;
mod search;

/// So many states of each pool are explored. `MODEL_STATES` sets another number.
fn most_states() -> usize {
    let set = std::env::var("MODEL_STATES").ok();
    set.and_then(|states| states.parse().ok()).unwrap_or(10_000)
}

/// Explores a pool, and prints how far.
fn explore(pool: &Pool) {
    let begun = Instant::now();
    match search(pool, most_states()) {
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

macro_rules! explore {
    ($($name:ident: $pool:ident,)*) => {
        $(
            #[test]
            fn $name() {
                explore(&pools::$pool);
            }
        )*
    };
}

explore! {
    one_budget: ONE_BUDGET,
    two_budgets: TWO_BUDGETS,
    budgets_on_one_cpu: BUDGETS_ON_ONE_CPU,
    budgets_on_two_cpus: BUDGETS_ON_TWO_CPUS,
    best_effort: BEST_EFFORT,
    one_lock: ONE_LOCK,
    one_mutex: ONE_MUTEX,
    lock_between_cpus: LOCK_BETWEEN_CPUS,
    spinners_on_one_cpu: SPINNERS_ON_ONE_CPU,
    spinners_on_two_cpus: SPINNERS_ON_TWO_CPUS,
    spinners_with_late_kicks: SPINNERS_WITH_LATE_KICKS,
    sleepers_on_one_cpu: SLEEPERS_ON_ONE_CPU,
    sleepers_on_two_cpus: SLEEPERS_ON_TWO_CPUS,
    crossed_waiters: CROSSED_WAITERS,
    inferred_on_one_cpu: INFERRED_ON_ONE_CPU,
    inferred_on_two_cpus: INFERRED_ON_TWO_CPUS,
    deferrals: DEFERRALS,
    one_change: ONE_CHANGE,
    one_move: ONE_MOVE,
    other_reservations: OTHER_RESERVATIONS,
    other_cpus: OTHER_CPUS,
    one_pause: ONE_PAUSE,
    pauses: PAUSES,
    one_end: ONE_END,
    ends: ENDS,
    one_worker: ONE_WORKER,
    workers: WORKERS,
    one_hotplug: ONE_HOTPLUG,
    hotplug: HOTPLUG,
    steal: STEAL,
}
