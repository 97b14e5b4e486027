//! What is offered of a snapshot: families of samples, whatever the text in which they are written.

use vcpu_sched::Counters;

use super::snapshot::{ExecutorCounts, Snapshot, VcpuTally};
use super::tally::CHAIN_BOUNDS;
use crate::trace::record::ExitKind;

/// What begins every name.
pub(super) const PREFIX: &str = "baton";

/// Names and values that tell the samples of a family apart.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Samples of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    /// Without [`PREFIX`], unit and what a counter's or a bucket's name ends in.
    pub(super) name: String,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Samples {
    /// Numbers that only grow.
    Counts(Vec<(Labels, u64)>),
    /// Times that only grow, ns. They are told in seconds.
    Times(Vec<(Labels, u64)>),
    /// Values that go up and down.
    Gauges(Vec<(Labels, f64)>),
    Histograms(Vec<(Labels, Histogram)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// Upper bounds, of which the last is infinite, and how many values are up to it and above the
    /// one before.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum: u64,
}

/// A counter of vCPUs.
struct VcpuCounter {
    name: &'static str,
    help: &'static str,
    /// In nanoseconds, told in seconds; or a plain number.
    time: bool,
    value: fn(&Counters, &VcpuTally) -> u64,
}

const fn time(
    name: &'static str,
    help: &'static str,
    value: fn(&Counters, &VcpuTally) -> u64,
) -> VcpuCounter {
    VcpuCounter {
        name,
        help,
        time: true,
        value,
    }
}

const fn number(
    name: &'static str,
    help: &'static str,
    value: fn(&Counters, &VcpuTally) -> u64,
) -> VcpuCounter {
    VcpuCounter {
        name,
        help,
        time: false,
        value,
    }
}

const VCPU_COUNTERS: [VcpuCounter; 24] = [
    time(
        "run",
        "CPU time that the vCPU ran, on any budget",
        |c, _| c.runtime_ns,
    ),
    time(
        "charged",
        "CPU time charged to the vCPU's budget, whoever ran",
        |c, _| c.charged_ns,
    ),
    time(
        "elsewhere",
        "Part of the charged time that other threads spent for the vCPU",
        |c, _| c.elsewhere_ns,
    ),
    time(
        "sleep",
        "Part of the time elsewhere that its sleeps and wake-ups took",
        |c, _| c.sleep_ns,
    ),
    time(
        "devices",
        "Part of the time elsewhere that devices of its guest took",
        |c, _| c.devices_ns,
    ),
    time(
        "disturbing",
        "Part of the time of its sleeps that was taken from more urgent vCPUs",
        |c, _| c.disturbing_ns,
    ),
    time(
        "donated",
        "Part of the charged time in which another vCPU ran",
        |c, _| c.donated_ns,
    ),
    time(
        "received",
        "Part of the run time that another vCPU paid for",
        |c, _| c.received_ns,
    ),
    time(
        "runnable_wait",
        "Time runnable, with a budget, and not running",
        |c, _| c.waited_ns,
    ),
    time(
        "throttled",
        "Time without budget, in throttlings that have ended",
        |c, _| c.throttled_ns,
    ),
    time(
        "holder_wait",
        "Time off its CPU with a known vCPU to wait for",
        |_, t| t.holder_wait_ns,
    ),
    time(
        "deferral_debt",
        "CPU time of deferrals beyond the budget or slice",
        |c, _| c.deferral_debt_ns,
    ),
    number(
        "switches",
        "Times put on a CPU that ran something else before",
        |c, _| c.switches,
    ),
    number(
        "migrations",
        "Times put on another CPU than it ran on before",
        |c, _| c.migrations,
    ),
    number(
        "preemptions",
        "Times taken off a CPU against its will",
        |c, _| c.preemptions,
    ),
    number(
        "holder_preemptions",
        "Preemptions while it held a lock",
        |c, _| c.holder_preemptions,
    ),
    number(
        "proxied",
        "Times put on a CPU on another vCPU's budget",
        |c, _| c.proxied,
    ),
    number(
        "deferrals",
        "Preemptions put off because it held a lock",
        |c, _| c.deferrals,
    ),
    number(
        "deferrals_expired",
        "Deferrals that ran to the end of their grace",
        |c, _| c.deferrals_expired,
    ),
    number("throttles", "Times its budget ran out", |c, _| c.throttles),
    number(
        "deadline_misses",
        "Deadlines that passed with budget left, one for each period",
        |c, _| c.deadline_misses,
    ),
    number(
        "wait_cycles",
        "Waits dropped because they led into a circle",
        |c, _| c.cycles,
    ),
    number(
        "long_chains",
        "Waits dropped because the chain was longer than is followed",
        |c, _| c.long_chains,
    ),
    number(
        "stale_waits",
        "Waits dropped because their holder had moved on",
        |c, _| c.stale_edges,
    ),
];

/// A counter of executors.
struct CpuCounter {
    name: &'static str,
    help: &'static str,
    time: bool,
    value: fn(&ExecutorCounts, u64) -> u64,
}

const CPU_COUNTERS: [CpuCounter; 5] = [
    CpuCounter {
        name: "busy",
        help: "CPU time spent on guests, their exits and decisions about them",
        time: true,
        value: |c, _| c.busy_ns,
    },
    CpuCounter {
        name: "idle",
        help: "Time asleep for want of work",
        time: true,
        value: |c, _| c.idle_ns,
    },
    CpuCounter {
        name: "host_steal",
        help: "Time that the host took for other things",
        time: true,
        value: |c, _| c.host_steal_ns,
    },
    CpuCounter {
        name: "decisions",
        help: "Decisions of the policy",
        time: false,
        value: |c, _| c.decisions,
    },
    CpuCounter {
        name: "kicks",
        help: "Times the policy asked for this CPU",
        time: false,
        value: |_, kicks| kicks,
    },
];

/// The families of `snapshot`, in the order in which they are told.
pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let names = &snapshot.names;
    let vcpus = names.vcpus.iter().map(|vcpu| {
        vec![
            ("guest", vcpu.guest_name.clone()),
            ("vcpu", vcpu.index.to_string()),
        ]
    });
    let cpus = names
        .host_cpus
        .iter()
        .map(|cpu| vec![("cpu", cpu.to_string())]);
    let (vcpus, cpus): (Vec<Labels>, Vec<Labels>) = (vcpus.collect(), cpus.collect());
    let with_vcpus = || vcpus.iter().cloned().zip(&snapshot.vcpus);
    let with_cpus = || cpus.iter().cloned().zip(&snapshot.cpus);

    let mut families = Vec::with_capacity(VCPU_COUNTERS.len() + CPU_COUNTERS.len() + 2);
    for counter in &VCPU_COUNTERS {
        let values = with_vcpus().map(|(labels, (c, t))| (labels, (counter.value)(c, t)));
        families.push(Family {
            name: format!("vcpu_{}", counter.name),
            help: counter.help,
            samples: samples(counter.time, values),
        });
    }
    let chains = with_vcpus().map(|(labels, (_, tally))| (labels, histogram(tally)));
    families.push(Family {
        name: "vcpu_proxy_chain_length".to_owned(),
        help: "Edges from who paid to who ran, at decisions to run a vCPU on another's budget",
        samples: Samples::Histograms(chains.collect()),
    });
    for counter in &CPU_COUNTERS {
        let values = with_cpus().map(|(labels, (c, kicks))| (labels, (counter.value)(c, *kicks)));
        families.push(Family {
            name: format!("executor_{}", counter.name),
            help: counter.help,
            samples: samples(counter.time, values),
        });
    }
    let exits = with_cpus().flat_map(|(labels, (counts, _))| {
        let kinds = ExitKind::ALL.into_iter().zip(counts.exits);
        kinds.map(move |(kind, count)| {
            let mut labels = labels.clone();
            labels.push(("kind", kind.name().to_owned()));
            (labels, count)
        })
    });
    families.push(Family {
        name: "executor_exits".to_owned(),
        help: "Times a vCPU came back to its executor, by what for",
        samples: Samples::Counts(exits.collect()),
    });
    families.extend(snapshot.pool.families(&cpus, &vcpus));
    families
}

fn samples(time: bool, values: impl Iterator<Item = (Labels, u64)>) -> Samples {
    match time {
        true => Samples::Times(values.collect()),
        false => Samples::Counts(values.collect()),
    }
}

fn histogram(tally: &VcpuTally) -> Histogram {
    let bounds = CHAIN_BOUNDS.iter().map(|&bound| f64::from(bound));
    let bounds = bounds.chain(std::iter::once(f64::INFINITY));
    Histogram {
        buckets: bounds.zip(tally.chains).collect(),
        count: tally.chains.iter().sum(),
        sum: tally.chain_edges,
    }
}
