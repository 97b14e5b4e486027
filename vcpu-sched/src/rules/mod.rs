//! The rules, one to a file. `scheduler.rs` has a table of them.

pub(crate) mod change;
pub(crate) mod charge;
pub(crate) mod contention;
pub(crate) mod debt;
pub(crate) mod defer;
pub(crate) mod delivery;
pub(crate) mod disturbance;
pub(crate) mod edges;
pub(crate) mod hotplug;
pub(crate) mod kick;
pub(crate) mod lead;
pub(crate) mod park;
pub(crate) mod pause;
pub(crate) mod pick;
pub(crate) mod pinning;
pub(crate) mod pool_cpus;
pub(crate) mod release;
pub(crate) mod removal;
pub(crate) mod stop;
pub(crate) mod suspect;
pub(crate) mod timers;
pub(crate) mod visit;
pub(crate) mod waiting;
pub(crate) mod wake;
pub(crate) mod worker;
