//! Under which names the outputs show the policy's counters.

use serde::Serializer;
use serde::ser::SerializeMap;
use vcpu_sched::Counters;

use super::fields::{CounterField, FIELDS, Unit};

/// A counter of a vCPU, and its names in the outputs that show it. Names in JSON, metrics and tables are
/// promises to users: they stay when the policy's own names change.
#[derive(Clone, Copy, Debug)]
pub struct VcpuCounter {
    /// What it counts.
    pub field: &'static CounterField,
    /// Key in the JSON summary.
    pub summary: Option<&'static str>,
    /// Title of the column in the summary as text.
    pub column: Option<&'static str>,
    /// Key in the snapshot of the control socket.
    pub control: Option<&'static str>,
    /// Name of the metric, between `baton_vcpu_` and what its unit adds.
    pub metric: Option<&'static str>,
}

impl VcpuCounter {
    /// A counter that no output shows yet. Evaluated at compile time, where a name that is no field is an error.
    const fn of(field: &str) -> Self {
        Self {
            field: find(field),
            summary: None,
            column: None,
            control: None,
            metric: None,
        }
    }

    const fn summary(mut self, key: &'static str) -> Self {
        self.summary = Some(key);
        self
    }

    const fn column(mut self, title: &'static str) -> Self {
        self.column = Some(title);
        self
    }

    const fn control(mut self, key: &'static str) -> Self {
        self.control = Some(key);
        self
    }

    const fn metric(mut self, name: &'static str) -> Self {
        self.metric = Some(name);
        self
    }

    /// The whole name of the metric's samples, if there is one.
    #[must_use]
    pub fn metric_name(&self) -> Option<String> {
        let unit = match self.field.unit {
            Unit::Nanoseconds => "_seconds",
            Unit::Count => "",
        };
        self.metric
            .map(|name| format!("baton_vcpu_{name}{unit}_total"))
    }
}

/// The counters of a vCPU, in the order in which all outputs list them.
#[rustfmt::skip]
pub const VCPU_COUNTERS: [VcpuCounter; 28] = [
    VcpuCounter::of("runtime_ns").summary("ran_ns").column("ran").control("ran_ns").metric("run"),
    VcpuCounter::of("charged_ns").summary("charged_ns").column("charged").control("charged_ns").metric("charged"),
    VcpuCounter::of("elsewhere_ns").summary("elsewhere_ns").column("elsewhere").control("elsewhere_ns").metric("elsewhere"),
    VcpuCounter::of("sleep_ns").summary("sleep_ns").metric("sleep"),
    VcpuCounter::of("devices_ns").summary("devices_ns").metric("devices"),
    VcpuCounter::of("disturbing_ns").summary("disturbing_ns").metric("disturbing"),
    VcpuCounter::of("donated_ns").summary("donated_ns").column("donated").control("donated_ns").metric("donated"),
    VcpuCounter::of("received_ns").summary("received_ns").column("received").control("received_ns").metric("received"),
    VcpuCounter::of("waited_ns").summary("waited_ns").column("waited").control("waited_ns").metric("runnable_wait"),
    VcpuCounter::of("throttled_wait_ns").summary("throttled_wait_ns").control("throttled_wait_ns"),
    VcpuCounter::of("host_steal_ns").summary("host_steal_ns").column("host steal").control("host_steal_ns"),
    VcpuCounter::of("preemptions").summary("preemptions").column("preempted").control("preemptions").metric("preemptions"),
    VcpuCounter::of("holder_preemptions").summary("holder_preemptions").column("holding").control("holder_preemptions").metric("holder_preemptions"),
    VcpuCounter::of("proxied").summary("proxied").column("proxied").control("proxied").metric("proxied"),
    VcpuCounter::of("received_ns").summary("proxied_ns"),
    VcpuCounter::of("longest_chain").summary("longest_chain").column("chain"),
    VcpuCounter::of("cycles").summary("cycles").metric("wait_cycles"),
    VcpuCounter::of("long_chains").summary("long_chains").metric("long_chains"),
    VcpuCounter::of("stale_edges").metric("stale_waits"),
    VcpuCounter::of("deferrals").summary("deferrals").column("deferred").control("deferrals").metric("deferrals"),
    VcpuCounter::of("deferrals_expired").metric("deferrals_expired"),
    VcpuCounter::of("deferral_debt_ns").summary("deferred_ns").metric("deferral_debt"),
    VcpuCounter::of("deadline_misses").summary("deadline_misses").column("missed").control("deadline_misses").metric("deadline_misses"),
    VcpuCounter::of("throttles").metric("throttles"),
    VcpuCounter::of("throttled_ns").summary("throttled_ns").column("throttled").control("throttled_ns").metric("throttled"),
    VcpuCounter::of("reduced_ns").summary("reduced_ns"),
    VcpuCounter::of("switches").summary("switches").column("switches").control("switches").metric("switches"),
    VcpuCounter::of("migrations").summary("migrations").column("moved").control("migrations").metric("migrations"),
];

/// The field of the policy's counters that has this name.
const fn find(name: &str) -> &'static CounterField {
    const ALL: &[CounterField] = &FIELDS;
    let mut index = 0;
    while index < ALL.len() {
        if same(ALL[index].name, name) {
            return &ALL[index];
        }
        index += 1;
    }
    panic!("the policy has no counter of this name")
}

/// Whether two strings are equal; `==` is not for constants yet.
pub(super) const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Writes the counters as the JSON summary names them.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_for_summary<S: Serializer>(
    counters: &Counters,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for counter in &VCPU_COUNTERS {
        if let Some(key) = counter.summary {
            map.serialize_entry(key, &(counter.field.get)(counters))?;
        }
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const METRICS: &str = include_str!("../../../../docs/metrics.md");
    const CONTROL: &str = include_str!("../../../../docs/control.md");

    #[test]
    fn every_counter_of_the_policy_is_shown_somewhere() {
        for field in &FIELDS {
            let shown = VCPU_COUNTERS
                .iter()
                .filter(|counter| same(counter.field.name, field.name));
            assert!(shown.count() > 0, "{}", field.name);
        }
    }

    #[test]
    fn no_output_has_a_name_twice() {
        let names: [fn(&VcpuCounter) -> Option<&'static str>; 4] =
            [|c| c.summary, |c| c.column, |c| c.control, |c| c.metric];
        for name in names {
            let all: Vec<&str> = VCPU_COUNTERS.iter().filter_map(name).collect();
            let different: BTreeSet<&&str> = all.iter().collect();
            assert_eq!(all.len(), different.len(), "{all:?}");
        }
    }

    #[test]
    fn the_page_about_metrics_describes_every_counter_as_its_help_does() {
        for counter in &VCPU_COUNTERS {
            let Some(name) = counter.metric_name() else {
                continue;
            };
            let row = format!("| `{name}` | {}", counter.field.help);
            assert!(
                METRICS.contains(&row),
                "docs/metrics.md needs a row\n{row} |"
            );
        }
    }

    #[test]
    fn the_page_about_metrics_names_no_counter_that_does_not_exist() {
        // What is made from the policy's events, and not from its counters.
        let others = [
            "baton_vcpu_holder_wait_seconds_total",
            "baton_vcpu_proxy_chain_length",
            "baton_vcpu_reservation_kept_ratio",
        ];
        let counters: Vec<String> = VCPU_COUNTERS
            .iter()
            .filter_map(VcpuCounter::metric_name)
            .collect();
        for name in METRICS
            .split('`')
            .filter(|part| part.starts_with("baton_vcpu_"))
        {
            let known = others.contains(&name) || counters.iter().any(|counter| counter == name);
            assert!(known, "{name}");
        }
    }

    #[test]
    fn the_page_about_the_control_socket_names_every_counter() {
        for key in VCPU_COUNTERS.iter().filter_map(|counter| counter.control) {
            assert!(CONTROL.contains(&format!("`{key}`")), "{key}");
        }
    }
}
