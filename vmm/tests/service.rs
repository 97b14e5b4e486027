//! `baton pool` and `baton vm` together: guests are killed, the pool is killed, and who is left keeps what it has.
//! `scripts/service-soak` does more of the same.

mod common;
#[path = "service/events.rs"]
mod events;
#[path = "service/flows.rs"]
mod flows;
#[path = "service/gap.rs"]
mod gap;
#[path = "service/hangs.rs"]
mod hangs;
#[path = "service/kills.rs"]
mod kills;
#[path = "service/leftovers.rs"]
mod leftovers;
#[path = "service/locks.rs"]
mod locks;
#[path = "service/many.rs"]
mod many;
#[path = "service/pool.rs"]
mod pool;
#[path = "service/promises.rs"]
mod promises;
#[path = "service/random.rs"]
mod random;
#[path = "service/restarts.rs"]
mod restarts;
