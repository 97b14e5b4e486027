//! A snapshot as OpenMetrics text.
//!
//! Source: the OpenMetrics 1.0 specification; escaping and form are the `prometheus-client`
//! crate's.

use std::fmt::{self, Write};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use vcpu_sched::Counters;

use super::snapshot::{ExecutorCounts, Snapshot, VcpuTally};
use super::tally::CHAIN_BOUNDS;
use crate::trace::record::ExitKind;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of `snapshot`.
#[must_use]
pub fn render(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("baton");
    registry.register_collector(Box::new(Report::new(snapshot.clone())));
    let mut text = String::new();
    // A string takes all that is written to it.
    if encode(&mut text, &registry).is_err() {
        text.clear();
        let _ = text.write_str("# EOF\n");
    }
    text
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

const VCPU_COUNTERS: [VcpuCounter; 23] = [
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
        |c, _| c.helpers_ns,
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
        "Waits dropped because they closed a cycle or a chain was too long",
        |c, _| c.cycles,
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

#[derive(Debug)]
struct Report {
    snapshot: Snapshot,
    /// Labels of the vCPUs.
    vcpus: Vec<[(&'static str, String); 2]>,
    /// Labels of the host CPUs.
    cpus: Vec<[(&'static str, String); 1]>,
}

impl Report {
    fn new(snapshot: Snapshot) -> Self {
        let names = &snapshot.names;
        let guest = |number: usize, name: &str| {
            // Two guests may have one name; their numbers would still be two.
            let taken = names
                .vcpus
                .iter()
                .any(|v| v.guest < number && v.guest_name == name);
            if taken {
                format!("{name}#{number}")
            } else {
                name.to_owned()
            }
        };
        let mut vcpus: Vec<[(&'static str, String); 2]> = Vec::with_capacity(names.vcpus.len());
        for (at, vcpu) in names.vcpus.iter().enumerate() {
            let label = match at.checked_sub(1).map(|before| &names.vcpus[before]) {
                Some(before) if before.guest == vcpu.guest => vcpus[at - 1][0].1.clone(),
                _ => guest(vcpu.guest, &vcpu.guest_name),
            };
            vcpus.push([("guest", label), ("vcpu", vcpu.index.to_string())]);
        }
        let cpus = names
            .host_cpus
            .iter()
            .map(|cpu| [("cpu", cpu.to_string())])
            .collect();
        Self {
            snapshot,
            vcpus,
            cpus,
        }
    }
}

impl Collector for Report {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for counter in &VCPU_COUNTERS {
            let values = self
                .snapshot
                .vcpus
                .iter()
                .map(|(c, t)| (counter.value)(c, t));
            let name = format!("vcpu_{}", counter.name);
            let with = self.vcpus.iter().zip(values);
            encode_counters(&mut encoder, &name, counter.help, counter.time, with)?;
        }
        self.encode_chains(&mut encoder)?;
        for counter in &CPU_COUNTERS {
            let values = self
                .snapshot
                .cpus
                .iter()
                .map(|(c, kicks)| (counter.value)(c, *kicks));
            let name = format!("executor_{}", counter.name);
            let with = self.cpus.iter().zip(values);
            encode_counters(&mut encoder, &name, counter.help, counter.time, with)?;
        }
        let mut exits = Vec::new();
        for ([cpu], (counts, _)) in self.cpus.iter().zip(&self.snapshot.cpus) {
            for (kind, count) in ExitKind::ALL.into_iter().zip(counts.exits) {
                exits.push(([cpu.clone(), ("kind", kind.name().to_owned())], count));
            }
        }
        let help = "Times a vCPU came back to its executor, by what for";
        let exits = exits.iter().map(|(labels, count)| (labels, *count));
        encode_counters(&mut encoder, "executor_exits", help, false, exits)
    }
}

impl Report {
    fn encode_chains(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Edges from who paid to who ran, at decisions to run a vCPU on another's budget";
        let histogram = MetricType::Histogram;
        let mut family =
            encoder.encode_descriptor("vcpu_proxy_chain_length", help, None, histogram)?;
        for (labels, (_, tally)) in self.vcpus.iter().zip(&self.snapshot.vcpus) {
            let bounds = CHAIN_BOUNDS.iter().map(|&bound| f64::from(bound));
            let bounds = bounds.chain(std::iter::once(f64::INFINITY));
            let buckets: Vec<(f64, u64)> = bounds.zip(tally.chains).collect();
            let count = tally.chains.iter().sum();
            family
                .encode_family(labels)?
                .encode_histogram::<NoLabelSet>(tally.chain_edges as f64, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn encode_counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    time: bool,
    values: impl Iterator<Item = (&'a [(&'static str, String); N], u64)>,
) -> fmt::Result {
    let unit = time.then_some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
    for (labels, value) in values {
        let mut metric = family.encode_family(labels)?;
        match time {
            true => metric.encode_counter::<NoLabelSet, _, u64>(&(value as f64 / 1e9), None)?,
            false => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
