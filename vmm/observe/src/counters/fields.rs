//! What the policy counts for a vCPU.

use vcpu_sched::Counters;

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time, ns.
    Nanoseconds,
    /// A plain number.
    Count,
}

/// One counter of the policy.
#[derive(Clone, Copy, Debug)]
pub struct CounterField {
    /// The field's name in [`Counters`].
    pub name: &'static str,
    /// What it counts, in one line.
    pub help: &'static str,
    /// In which unit.
    pub unit: Unit,
    /// Reads its value.
    pub get: fn(&Counters) -> u64,
}

const fn time(name: &'static str, help: &'static str, get: fn(&Counters) -> u64) -> CounterField {
    CounterField {
        name,
        help,
        unit: Unit::Nanoseconds,
        get,
    }
}

const fn count(name: &'static str, help: &'static str, get: fn(&Counters) -> u64) -> CounterField {
    CounterField {
        name,
        help,
        unit: Unit::Count,
        get,
    }
}

/// All counters of the policy.
#[rustfmt::skip]
pub const FIELDS: [CounterField; 27] = [
    time("runtime_ns", "CPU time that the vCPU ran, on any budget", |c| c.runtime_ns),
    time("charged_ns", "CPU time charged to the vCPU's budget, whichever vCPU ran", |c| c.charged_ns),
    time("elsewhere_ns", "Part of the charged time that other threads spent for the vCPU", |c| c.elsewhere_ns),
    time("sleep_ns", "Part of the time elsewhere that its sleeps and wake-ups took", |c| c.sleep_ns),
    time("devices_ns", "Part of the time elsewhere that devices of its guest took", |c| c.helpers_ns),
    time("disturbing_ns", "Part of the time of its sleeps that was taken from more urgent vCPUs", |c| c.disturbing_ns),
    time("donated_ns", "Part of the charged time in which another vCPU ran", |c| c.donated_ns),
    time("received_ns", "Part of the run time on another vCPU's budget", |c| c.received_ns),
    time("waited_ns", "Time runnable, with a budget, and not running", |c| c.waited_ns),
    time("throttled_wait_ns", "Time runnable, without a budget, and not running", |c| c.throttled_wait_ns),
    time("host_steal_ns", "Part of the time on a CPU that the host gave to others", |c| c.host_steal_ns),
    time("throttled_ns", "Time without budget, in throttlings that have ended", |c| c.throttled_ns),
    time("reduced_ns", "Time in which its reservation was reduced because host CPUs were away", |c| c.reduced_ns),
    count("throttles", "Times its budget ran out", |c| c.throttles),
    count("switches", "Times put on a CPU that ran something else before", |c| c.switches),
    count("migrations", "Times put on another CPU than it ran on before", |c| c.migrations),
    count("preemptions", "Times taken off a CPU against its will", |c| c.preemptions),
    count("holder_preemptions", "Preemptions while it held a lock", |c| c.holder_preemptions),
    count("proxied", "Times put on a CPU on another vCPU's budget", |c| c.proxied),
    count("longest_chain", "Longest chain from a donor to it, in edges", |c| u64::from(c.longest_chain)),
    count("cycles", "Waits dropped because they led into a circle", |c| c.cycles),
    count("long_chains", "Waits dropped because the chain was longer than is followed", |c| c.long_chains),
    count("stale_edges", "Waits dropped because their holder had moved on", |c| c.stale_edges),
    count("deferrals", "Preemptions put off because it held a lock", |c| c.deferrals),
    count("deferrals_expired", "Deferrals that were used to their end", |c| c.deferrals_expired),
    time("deferral_debt_ns", "CPU time of deferrals beyond the budget or slice", |c| c.deferral_debt_ns),
    count("deadline_misses", "Deadlines that passed with budget left, one for each period", |c| c.deadline_misses),
];
