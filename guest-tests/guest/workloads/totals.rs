//! What all vCPUs counted together.

use crate::smp;
use crate::stats::{Count, Stats};

/// The sum of a count over all vCPUs.
pub fn sum(count: impl Fn(&Stats) -> &Count) -> u64 {
    smp::cpus().map(|cpu| count(&cpu.stats).get()).sum()
}

/// The largest value of a count.
pub fn max(count: impl Fn(&Stats) -> &Count) -> u64 {
    let counts = smp::cpus().map(|cpu| count(&cpu.stats).get());
    counts.max().unwrap_or(0)
}
