//! What is counted for each vCPU. Each stretch of time has a budget that paid and a vCPU that ran; both are
//! kept, and their sums over a guest agree.

use crate::ids::Ns;

/// Counters of one vCPU since it was added. Times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Run by this execution context, on whichever budget.
    pub runtime_ns: Ns,
    /// Charged to this scheduling context, whichever vCPU ran, and for what was spent elsewhere.
    pub charged_ns: Ns,
    /// Part of `charged_ns` that no vCPU ran: CPU time that other threads spent for this one.
    pub elsewhere_ns: Ns,
    /// Part of `elsewhere_ns` that its sleeps took, and its wake-ups.
    pub sleep_ns: Ns,
    /// Part of `elsewhere_ns` that workers of its guest used, for which its claim paid.
    pub devices_ns: Ns,
    /// Part of `sleep_ns` that was taken from more urgent claims of other guests.
    pub disturbing_ns: Ns,
    /// Part of `charged_ns` in which another vCPU ran.
    pub donated_ns: Ns,
    /// Part of `runtime_ns` that another vCPU paid for.
    pub received_ns: Ns,
    /// Runnable and not running, while its claim had a budget: it waited for a CPU.
    pub waited_ns: Ns,
    /// Runnable and not running, while its claim was throttled: it waited for a budget.
    pub throttled_wait_ns: Ns,
    /// Of the time on a CPU, what the host gave to others ([`Scheduler::host_took`]).
    ///
    /// [`Scheduler::host_took`]: crate::Scheduler::host_took
    pub host_steal_ns: Ns,
    /// Throttled by a hard reservation, whether or not it could have run.
    pub throttled_ns: Ns,
    /// Its reservation was reduced because host CPUs were away, in times that have ended.
    pub reduced_ns: Ns,
    /// How often it was throttled.
    pub throttles: u64,
    /// How often it was put on a CPU that ran another vCPU, or nothing, before.
    pub switches: u64,
    /// How often it was put on another CPU than the one on which it ran last.
    pub migrations: u64,
    /// How often it was taken off a CPU against its will.
    pub preemptions: u64,
    /// Part of `preemptions` in which it said that it held a lock.
    pub holder_preemptions: u64,
    /// How often it was put on a CPU on another vCPU's budget.
    pub proxied: u64,
    /// The longest chain from a donor to this vCPU, in edges.
    pub longest_chain: u32,
    /// Edges of this vCPU that were dropped because they led into a circle of at most
    /// [`crate::MAX_CHAIN`] / 2 edges, none of them known to be stale.
    pub cycles: u64,
    /// Edges of this vCPU that were dropped because the chain is longer than is followed.
    pub long_chains: u64,
    /// Edges of this vCPU that were dropped because their holder had moved on.
    pub stale_edges: u64,
    /// How often its preemption was deferred.
    pub deferrals: u64,
    /// Deferrals that ran to the end of the grace.
    pub deferrals_expired: u64,
    /// Run during deferrals: debt, charged like all the rest.
    pub deferral_debt_ns: Ns,
    /// Deadlines that passed with budget left, one for each period in which its budget did not come.
    pub deadline_misses: u64,
}
