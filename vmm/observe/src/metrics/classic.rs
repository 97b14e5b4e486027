//! A snapshot in the text format that Prometheus had before OpenMetrics, version 0.0.4. node_exporter's textfile
//! collector and older scrapers read no other. A counter's description has the whole name of its samples in
//! this format, including `_total`, and there are neither units nor an end.
//!
//! Source: the page "Exposition formats" of Prometheus' documentation.

use std::fmt::{self, Write};

use super::families::families;
use super::family::{Family, Histogram, Labels, PREFIX, Samples, seconds};
use super::snapshot::MetricsSnapshot;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text of `snapshot`.
pub(super) fn render(snapshot: &MetricsSnapshot) -> String {
    let mut text = String::new();
    for family in families(snapshot) {
        // Writing to a string does not fail.
        let _ = write_family(&mut text, &family);
    }
    text
}

fn write_family(text: &mut String, family: &Family) -> fmt::Result {
    let (unit_and_end, kind) = match family.samples {
        Samples::Counts(_) => ("_total", "counter"),
        Samples::Times(_) => ("_seconds_total", "counter"),
        Samples::Gauges(_) => ("", "gauge"),
        Samples::Histograms(_) => ("", "histogram"),
    };
    let name = format!("{PREFIX}_{}{unit_and_end}", family.name);
    let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
    writeln!(text, "# HELP {name} {help}")?;
    writeln!(text, "# TYPE {name} {kind}")?;
    match &family.samples {
        Samples::Counts(counts) => counts
            .iter()
            .try_for_each(|(labels, count)| writeln!(text, "{name}{} {count}", LabelSet(labels))),
        Samples::Times(times) => times.iter().try_for_each(|(labels, ns)| {
            writeln!(text, "{name}{} {}", LabelSet(labels), seconds(*ns))
        }),
        Samples::Gauges(gauges) => gauges
            .iter()
            .try_for_each(|(labels, value)| writeln!(text, "{name}{} {value}", LabelSet(labels))),
        Samples::Histograms(histograms) => histograms
            .iter()
            .try_for_each(|(labels, histogram)| write_histogram(text, &name, labels, histogram)),
    }
}

fn write_histogram(
    text: &mut String,
    name: &str,
    labels: &Labels,
    histogram: &Histogram,
) -> fmt::Result {
    let mut up_to = 0;
    for (bound, count) in &histogram.buckets {
        up_to += count;
        let bound = match bound.is_finite() {
            // 2.0 and not 2, as in OpenMetrics, so that a series has the same name in both formats.
            true => format!("{bound:?}"),
            false => "+Inf".to_owned(),
        };
        let mut labels = labels.clone();
        labels.push(("le", bound));
        writeln!(text, "{name}_bucket{} {up_to}", LabelSet(&labels))?;
    }
    writeln!(text, "{name}_sum{} {}", LabelSet(labels), histogram.sum)?;
    writeln!(text, "{name}_count{} {}", LabelSet(labels), histogram.count)
}

/// Labels as they follow a name.
struct LabelSet<'a>(&'a Labels);

impl fmt::Display for LabelSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, value), before) in self
            .0
            .iter()
            .zip(std::iter::once("{").chain(std::iter::repeat(",")))
        {
            write!(f, "{before}{name}=\"")?;
            for character in value.chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_char('"')?;
        }
        match self.0.is_empty() {
            true => Ok(()),
            false => f.write_char('}'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::open_metrics::tests::snapshot;

    #[test]
    fn a_counter_is_described_by_the_whole_name_of_its_samples() {
        let text = render(&snapshot("db"));
        for line in [
            "# HELP baton_vcpu_run_seconds_total CPU time that the vCPU ran, on any budget",
            "# TYPE baton_vcpu_run_seconds_total counter",
            "baton_vcpu_run_seconds_total{guest=\"db\",vcpu=\"0\"} 1.5",
            "# TYPE baton_vcpu_proxied_total counter",
            "baton_vcpu_proxied_total{guest=\"db\",vcpu=\"0\"} 3",
            "# TYPE baton_vcpu_proxy_chain_length histogram",
            "baton_vcpu_proxy_chain_length_bucket{guest=\"db\",vcpu=\"0\",le=\"2.0\"} 3",
            "baton_vcpu_proxy_chain_length_bucket{guest=\"db\",vcpu=\"0\",le=\"+Inf\"} 3",
            "baton_vcpu_proxy_chain_length_sum{guest=\"db\",vcpu=\"0\"} 4",
            "baton_vcpu_proxy_chain_length_count{guest=\"db\",vcpu=\"0\"} 3",
            "baton_executor_busy_seconds_total{cpu=\"4\"} 0.25",
            "baton_executor_exits_total{cpu=\"4\",kind=\"doorbell\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(
            !text.contains("# UNIT") && !text.contains("# EOF"),
            "{text}"
        );
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let snapshot = snapshot("a\"b\\c\nd");
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let mut samples: Vec<(Vec<String>, String)> = lines
                .map(|line| {
                    let (series, value) = line.rsplit_once(' ').expect("a sample");
                    let mut parts: Vec<String> =
                        series.split(['{', '}', ',']).map(str::to_owned).collect();
                    parts.sort();
                    let value: f64 = value.parse().expect("a number");
                    (parts, value.to_string())
                })
                .collect();
            samples.sort();
            samples
        };
        let classic = samples(&render(&snapshot));
        assert!(classic.len() > 60);
        assert_eq!(
            classic,
            samples(&crate::metrics::open_metrics::render(&snapshot))
        );
    }
}
