//! The tables that the rules work on.

pub(crate) mod blocked_on;
pub(crate) mod contexts;
pub(crate) mod deferral_credit;
pub(crate) mod disturbance_credit;
pub(crate) mod domain;
pub(crate) mod guest;
pub(crate) mod heap;
pub(crate) mod lists;
pub(crate) mod timer_queue;
pub(crate) mod worker_table;
