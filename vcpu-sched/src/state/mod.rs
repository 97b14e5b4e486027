//! The tables that the rules work on.
//!
//! The rules are generic over the listener, so they are compiled in the crate that uses this one. The
//! methods of the tables are marked `#[inline]` so that they can be inlined there; without that a decision
//! takes a sixth longer.

pub(crate) mod blocked_on;
pub(crate) mod contexts;
pub(crate) mod cpu_table;
pub(crate) mod deferral_credit;
pub(crate) mod disturbance_credit;
pub(crate) mod domain;
pub(crate) mod guess_credit;
pub(crate) mod guest;
pub(crate) mod heap;
pub(crate) mod lists;
pub(crate) mod precedence;
pub(crate) mod timer_queue;
pub(crate) mod worker_table;
