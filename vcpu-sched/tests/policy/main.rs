//! What the policy promises, by its public API: one module for each kind of promise.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod admission;
mod best_effort;
mod blocked;
mod changes;
mod counted;
mod debt;
mod deferral;
mod delivery;
mod disturbance;
mod donors;
mod holder_states;
mod hotplug;
mod lies;
mod misses;
mod pause;
mod pool;
mod pool_cpus;
mod regressions;
mod removal;
mod reuse;
mod suspects;
mod timers;
mod waking;
mod workers;
