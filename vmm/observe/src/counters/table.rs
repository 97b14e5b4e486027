//! Which counters the summary and the control socket have, and in which order.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserializer, Serializer};
use vcpu_sched::{CounterField, CounterUnit, Counters};

/// A counter of a vCPU in the summary.
#[derive(Clone, Copy, Debug)]
pub struct VcpuCounter {
    /// What it counts.
    pub field: &'static CounterField,
    /// Key in the JSON of the summary, and of the control socket.
    pub json: &'static str,
    /// Title of its column in the summary as text, if it has one.
    pub column: Option<&'static str>,
    /// Whether the control socket has it.
    pub in_control: bool,
}

impl VcpuCounter {
    /// A counter without a column. Evaluated at compile time, where an error of the table is one of the compiler.
    const fn of(name: &str) -> Self {
        let field = find(name);
        match field.json {
            Some(json) => Self::named(name, json),
            None => panic!("the counter has no name for JSON"),
        }
    }

    /// The same with another key.
    const fn named(name: &str, json: &'static str) -> Self {
        Self {
            field: find(name),
            json,
            column: None,
            in_control: false,
        }
    }

    const fn column(mut self, title: &'static str) -> Self {
        self.column = Some(title);
        self
    }

    const fn in_control(mut self) -> Self {
        self.in_control = true;
        self
    }
}

/// The counters of a vCPU in the summary, in its order.
pub const VCPU_COUNTERS: [VcpuCounter; 33] = [
    VcpuCounter::of("runtime_ns").column("ran").in_control(),
    VcpuCounter::of("charged_ns").column("charged").in_control(),
    VcpuCounter::of("elsewhere_ns")
        .column("elsewhere")
        .in_control(),
    VcpuCounter::of("sleep_ns"),
    VcpuCounter::of("devices_ns"),
    VcpuCounter::of("disturbing_ns"),
    VcpuCounter::of("donated_ns").column("donated").in_control(),
    VcpuCounter::of("received_ns")
        .column("received")
        .in_control(),
    VcpuCounter::of("waited_ns").column("waited").in_control(),
    VcpuCounter::of("throttled_wait_ns").in_control(),
    VcpuCounter::of("host_steal_ns")
        .column("host steal")
        .in_control(),
    VcpuCounter::of("preemptions")
        .column("preempted")
        .in_control(),
    VcpuCounter::of("holder_preemptions")
        .column("holding")
        .in_control(),
    VcpuCounter::of("proxied").column("proxied").in_control(),
    // Its name before there was `received_ns`.
    VcpuCounter::named("received_ns", "proxied_ns"),
    VcpuCounter::of("suspected").in_control(),
    VcpuCounter::of("suspect_releases").in_control(),
    VcpuCounter::of("longest_chain").column("chain"),
    VcpuCounter::of("cycles"),
    VcpuCounter::of("long_chains"),
    VcpuCounter::of("deferrals").column("deferred").in_control(),
    VcpuCounter::of("deferrals_expired").in_control(),
    VcpuCounter::of("deferral_debt_ns"),
    VcpuCounter::of("promised_ns")
        .column("promised")
        .in_control(),
    VcpuCounter::of("delivered_ns")
        .column("delivered")
        .in_control(),
    VcpuCounter::of("lost_to_host_ns")
        .column("lost to host")
        .in_control(),
    VcpuCounter::of("lost_to_overcommit_ns")
        .column("lost to overcommit")
        .in_control(),
    VcpuCounter::of("undemanded_ns").in_control(),
    VcpuCounter::of("deadline_misses")
        .column("missed")
        .in_control(),
    VcpuCounter::of("throttled_ns")
        .column("throttled")
        .in_control(),
    VcpuCounter::of("reduced_ns"),
    VcpuCounter::of("switches").column("switches").in_control(),
    VcpuCounter::of("migrations").column("moved").in_control(),
];

/// The whole name of the samples of a counter's metric, if there is one.
#[must_use]
pub fn metric_name(field: &CounterField) -> Option<String> {
    let unit = match field.unit {
        CounterUnit::Nanoseconds => "_seconds",
        CounterUnit::Times | CounterUnit::MaxEdges => "",
    };
    field
        .metric
        .map(|name| format!("baton_vcpu_{name}{unit}_total"))
}

/// The policy's counter of this name.
const fn find(name: &str) -> &'static CounterField {
    let mut index = 0;
    while index < Counters::FIELDS.len() {
        if same(Counters::FIELDS[index].name, name) {
            return &Counters::FIELDS[index];
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
    let mut map = serializer.serialize_map(Some(VCPU_COUNTERS.len()))?;
    for counter in &VCPU_COUNTERS {
        map.serialize_entry(counter.json, &(counter.field.value)(counters))?;
    }
    map.end()
}

/// Reads the counters that [`serialize_for_summary`] has written. Other fields are skipped, and counters that are not
/// there are 0.
///
/// # Errors
/// Those of the deserializer.
pub fn deserialize_from_summary<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Counters, D::Error> {
    deserializer.deserialize_map(SummaryVisitor)
}

struct SummaryVisitor;

impl<'de> Visitor<'de> for SummaryVisitor {
    type Value = Counters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counters of a vCPU in a summary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counters, A::Error> {
        let mut counters = Counters::default();
        while let Some(key) = map.next_key::<String>()? {
            match VCPU_COUNTERS.iter().find(|counter| counter.json == key) {
                Some(counter) => (counter.field.set)(&mut counters, map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const METRICS: &str = include_str!("../../../../docs/metrics.md");
    const CONTROL: &str = include_str!("../../../../docs/control.md");

    #[test]
    fn every_counter_with_a_name_for_json_is_in_the_summary() {
        for json in Counters::FIELDS.iter().filter_map(|field| field.json) {
            assert!(VCPU_COUNTERS.iter().any(|row| row.json == json), "{json}");
        }
    }

    #[test]
    fn no_name_is_there_twice() {
        let json: Vec<&str> = VCPU_COUNTERS.iter().map(|row| row.json).collect();
        let columns = VCPU_COUNTERS.iter().filter_map(|row| row.column).collect();
        let metrics = Counters::FIELDS.iter().filter_map(|field| field.metric);
        for names in [json, columns, metrics.collect::<Vec<_>>()] {
            let different: BTreeSet<&&str> = names.iter().collect();
            assert_eq!(names.len(), different.len(), "{names:?}");
        }
    }

    #[test]
    fn the_page_about_metrics_describes_every_counter_as_its_help_does() {
        for field in Counters::FIELDS {
            if let Some(name) = metric_name(field) {
                let row = format!("| `{name}` | {}", field.help);
                assert!(
                    METRICS.contains(&row),
                    "docs/metrics.md needs a row\n{row} |"
                );
            }
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
        let counters: Vec<String> = Counters::FIELDS.iter().filter_map(metric_name).collect();
        for name in METRICS
            .split('`')
            .filter(|part| part.starts_with("baton_vcpu_"))
        {
            let known = others.contains(&name) || counters.iter().any(|counter| counter == name);
            assert!(known, "{name}");
        }
    }

    #[test]
    fn the_page_about_the_control_socket_names_every_counter_that_is_there() {
        for row in VCPU_COUNTERS.iter().filter(|row| row.in_control) {
            assert!(CONTROL.contains(&format!("`{}`", row.json)), "{}", row.json);
        }
    }
}
