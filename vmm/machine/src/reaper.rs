//! Takes ended guests apart, so that neither executors nor other guests wait for it.

mod thread;

pub use thread::{Pace, Paced, Reaper, ReaperThread};
