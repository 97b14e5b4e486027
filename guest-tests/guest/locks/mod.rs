//! Spinlocks, each with and without hints, whose waiters spin or go idle after a while. (The mutex,
//! whose waiters sleep, implements the same trait: `mutex.rs`.)
//!
//! Without hints a lock stores nothing for the host, and rings no doorbell but idle and wake-up.

mod mcs;
mod tas;
mod ticket;
mod waiter;

pub use mcs::Mcs;
pub use tas::Tas;
pub use ticket::Ticket;
pub use waiter::Waiter;
