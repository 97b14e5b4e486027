//! The families of a snapshot, whatever the format of the text.

use vcpu_sched::{CounterField, CounterUnit, Counters};

use super::family::{Family, Histogram, Labels, Samples};
use super::gauges::ExecutorCounts;
use super::pool_now::PoolNow;
use super::snapshot::{GuestNow, MetricsSnapshot};
use super::tally::{CHAIN_BOUNDS, VcpuTally};
use crate::exit_kind::ExitKind;
use crate::names::Names;

/// A counter of executors.
struct ExecutorCounter {
    name: &'static str,
    help: &'static str,
    unit: CounterUnit,
    /// From the executor's own counts and its kicks.
    value: fn(&ExecutorCounts, u64) -> u64,
}

const EXECUTOR_COUNTERS: [ExecutorCounter; 5] = [
    ExecutorCounter {
        name: "busy",
        help: "CPU time spent on guests, their exits and decisions about them",
        unit: CounterUnit::Nanoseconds,
        value: |c, _| c.busy_ns,
    },
    ExecutorCounter {
        name: "idle",
        help: "Time asleep for want of work",
        unit: CounterUnit::Nanoseconds,
        value: |c, _| c.idle_ns,
    },
    ExecutorCounter {
        name: "host_steal",
        help: "Time that the host took for other things",
        unit: CounterUnit::Nanoseconds,
        value: |c, _| c.host_steal_ns,
    },
    ExecutorCounter {
        name: "decisions",
        help: "Decisions of the policy",
        unit: CounterUnit::Times,
        value: |c, _| c.decisions,
    },
    ExecutorCounter {
        name: "kicks",
        help: "Times the policy made this CPU decide again",
        unit: CounterUnit::Times,
        value: |_, kicks| kicks,
    },
];

/// The families of `snapshot`, in the order in which text lists them.
pub(super) fn families(snapshot: &MetricsSnapshot) -> Vec<Family> {
    let vcpus = vcpu_labels(&snapshot.names);
    let cpus = cpu_labels(&snapshot.names);
    let mut families = vcpu_counters(snapshot, &vcpus);
    families.extend(holder_waits_and_chains(snapshot, &vcpus));
    families.extend(executor_counters(snapshot, &cpus));
    families.push(exits(snapshot, &cpus));
    families.extend(pool_now(&snapshot.pool, &cpus, &vcpus));
    families.push(hint_sources(&snapshot.guests));
    families.push(restarts(&snapshot.guests));
    families
}

fn vcpu_labels(names: &Names) -> Vec<Labels> {
    let labels = names.vcpus.iter().map(|vcpu| {
        vec![
            ("guest", vcpu.guest_name.clone()),
            ("vcpu", vcpu.index.to_string()),
        ]
    });
    labels.collect()
}

fn cpu_labels(names: &Names) -> Vec<Labels> {
    let labels = names.host_cpus.iter();
    labels.map(|cpu| vec![("cpu", cpu.to_string())]).collect()
}

fn vcpu_counters(snapshot: &MetricsSnapshot, vcpus: &[Labels]) -> Vec<Family> {
    let family = |field: &CounterField| {
        let counters = snapshot.vcpus.iter().map(|(counters, _)| counters);
        Some(Family {
            name: format!("vcpu_{}", field.metric?),
            help: field.help,
            samples: samples(field.unit, vcpus, counters.map(field.value)),
        })
    };
    Counters::FIELDS.iter().filter_map(family).collect()
}

fn holder_waits_and_chains(snapshot: &MetricsSnapshot, vcpus: &[Labels]) -> [Family; 2] {
    let tallies = || snapshot.vcpus.iter().map(|(_, tally)| tally);
    let waits = tallies().map(|tally| tally.holder_wait_ns);
    let chains = vcpus.iter().cloned().zip(tallies().map(histogram));
    [
        Family {
            name: "vcpu_holder_wait".to_owned(),
            help: "Time off its CPU with a known vCPU to wait for",
            samples: samples(CounterUnit::Nanoseconds, vcpus, waits),
        },
        Family {
            name: "vcpu_proxy_chain_length".to_owned(),
            help: "Edges from the donor to the vCPU that ran, at decisions to run it on another vCPU's budget",
            samples: Samples::Histograms(chains.collect()),
        },
    ]
}

fn executor_counters(snapshot: &MetricsSnapshot, cpus: &[Labels]) -> Vec<Family> {
    let family = |counter: &ExecutorCounter| {
        let counts = snapshot.cpus.iter();
        let values = counts.map(|(counts, kicks)| (counter.value)(counts, *kicks));
        Family {
            name: format!("executor_{}", counter.name),
            help: counter.help,
            samples: samples(counter.unit, cpus, values),
        }
    };
    EXECUTOR_COUNTERS.iter().map(family).collect()
}

fn exits(snapshot: &MetricsSnapshot, cpus: &[Labels]) -> Family {
    let exits = cpus
        .iter()
        .zip(&snapshot.cpus)
        .flat_map(|(cpu, (counts, _))| {
            let kinds = ExitKind::ALL.into_iter().zip(counts.exits);
            kinds.map(move |(kind, count)| {
                let mut labels = cpu.clone();
                labels.push(("kind", kind.name().to_owned()));
                (labels, count)
            })
        });
    Family {
        name: "executor_exits".to_owned(),
        help: "Times a vCPU returned to its executor, by reason",
        samples: Samples::Counts(exits.collect()),
    }
}

fn pool_now(pool: &PoolNow, cpus: &[Labels], vcpus: &[Labels]) -> [Family; 2] {
    let usable = pool.usable.iter();
    let usable = usable.map(|&usable| f64::from(u8::from(usable)));
    let kept = vcpus.iter().cloned().zip(&pool.kept);
    let kept = kept.filter_map(|(labels, kept)| Some((labels, (*kept)?)));
    [
        Family {
            name: "executor_available".to_owned(),
            help: "1 while the host CPU can be used, 0 while it is offline or not for this process",
            samples: Samples::Gauges(cpus.iter().cloned().zip(usable).collect()),
        },
        Family {
            name: "vcpu_reservation_kept_ratio".to_owned(),
            help: "The part of the reservation that is in force: less than 1 while host CPUs are away",
            samples: Samples::Gauges(kept.collect()),
        },
    ]
}

fn restarts(guests: &[GuestNow]) -> Family {
    let labels: Vec<Labels> = guests
        .iter()
        .map(|guest| vec![("guest", guest.name.clone())])
        .collect();
    let counts = guests.iter().map(|guest| guest.restarts);
    Family {
        name: "guest_restarts".to_owned(),
        help: "Times the guest has been started again",
        samples: samples(CounterUnit::Times, &labels, counts),
    }
}

fn hint_sources(guests: &[GuestNow]) -> Family {
    let sources = guests.iter().map(|guest| {
        let labels = vec![
            ("guest", guest.name.clone()),
            ("source", guest.hints.clone()),
        ];
        (labels, 1.0)
    });
    Family {
        name: "guest_hint_source".to_owned(),
        help: "1 for the source from which the hints of the guest come at the moment",
        samples: Samples::Gauges(sources.collect()),
    }
}

fn samples(unit: CounterUnit, labels: &[Labels], values: impl Iterator<Item = u64>) -> Samples {
    let samples = labels.iter().cloned().zip(values).collect();
    match unit {
        CounterUnit::Nanoseconds => Samples::Times(samples),
        CounterUnit::Times | CounterUnit::MaxEdges => Samples::Counts(samples),
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
