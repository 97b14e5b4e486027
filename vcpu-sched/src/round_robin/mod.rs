//! Round robin: one queue, equal slices, no reservations, no hints. Not for use, but for comparison: the
//! difference to [`Scheduler`] is what deadlines, shares and proxy execution are worth.
//!
//! A vCPU that becomes runnable goes to the end of the queue. A CPU takes the first vCPU of the queue that may
//! run there, for a slice if others wait for that CPU, or until one of them comes. Guests are not told apart, so
//! one with more vCPUs gets more.
//!
//! [`Scheduler`]: crate::Scheduler

mod policy;
mod pool;

pub use pool::RoundRobin;
