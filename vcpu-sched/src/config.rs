//! How a pool schedules.

use crate::ids::Ns;

/// How a pool schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host CPUs of the pool, at most 128.
    pub cpus: usize,
    /// Whether waiters' budgets carry holders.
    pub proxy: bool,
    /// Grace of a holder that is out of time, ns; `None`: no deferral.
    pub defer_ns: Option<Ns>,
    /// Slice of best-effort vCPUs that share a CPU, ns.
    pub slice_ns: Ns,
    /// How long a spinning waiter sleeps with its halted holder at most, ns. Bounded because a
    /// vCPU that spins may have an interrupt to take, of which the policy is not told.
    pub park_ns: Ns,
    /// Thousandths of the pool that reservations may take.
    pub cap_permille: u64,
}

impl Config {
    /// A pool of `cpus` host CPUs: proxying on, 50 us of grace, slices of 4 ms, 95 % for
    /// reservations.
    #[must_use]
    pub const fn new(cpus: usize) -> Self {
        Self {
            cpus,
            proxy: true,
            defer_ns: Some(50_000),
            slice_ns: 4_000_000,
            park_ns: 1_000_000,
            cap_permille: 950,
        }
    }
}
