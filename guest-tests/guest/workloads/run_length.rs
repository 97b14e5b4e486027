//! When a workload ends.

use crate::{clock, config};

/// The TSC value at which the workload ends if it starts now; `u64::MAX` with `seconds=0`, for ever.
pub fn end_time() -> u64 {
    match config::get().seconds {
        0 => u64::MAX,
        ns => clock::now().saturating_add(clock::from_ns(ns)),
    }
}

/// How long a workload of rounds lasts: for `acquisitions=` rounds, or else for `seconds=`.
pub struct RunLength {
    rounds: Option<u64>,
    end: u64,
}

impl RunLength {
    /// The length of a workload that starts now.
    pub fn from_now() -> Self {
        Self {
            rounds: config::get().acquisitions,
            end: end_time(),
        }
    }

    /// Whether the workload ends after so many rounds.
    pub fn is_over(&self, rounds: u64) -> bool {
        match self.rounds {
            Some(goal) => rounds >= goal,
            None => clock::now() >= self.end,
        }
    }
}
