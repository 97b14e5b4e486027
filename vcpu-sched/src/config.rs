//! How a pool schedules.

use crate::cpuset::CpuSet;
use crate::ids::Ns;

/// How a pool schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host CPUs that the pool has or can get, at most [`MAX_CPUS`](crate::MAX_CPUS).
    pub cpus: usize,
    /// Those of them that it does not have at first. At least one is left.
    pub spare: CpuSet,
    /// Whether waiters' scheduling contexts carry holders.
    pub proxy: bool,
    /// Length of the deferral of a holder that is out of time, ns; `None`: no deferrals.
    pub defer_ns: Option<Ns>,
    /// Slice of best-effort vCPUs that share a CPU, ns; at least 1.
    pub slice_ns: Ns,
    /// For how long at most a spinning waiter is parked behind its halted holder, ns. This is bounded
    /// because a vCPU that spins may have an interrupt to take, of which the policy does not learn.
    pub park_ns: Ns,
    /// Thousandths of the pool that reservations may take.
    pub cap_permille: u64,
}

impl Config {
    /// A pool of `cpus` host CPUs: proxying on, deferrals of 50 us, slices of 4 ms, 95 % for
    /// reservations.
    #[must_use]
    pub const fn new(cpus: usize) -> Self {
        Self {
            cpus,
            spare: CpuSet::EMPTY,
            proxy: true,
            defer_ns: Some(50_000),
            slice_ns: 4_000_000,
            park_ns: 1_000_000,
            cap_permille: 950,
        }
    }
}
