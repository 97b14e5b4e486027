//! A snapshot as OpenMetrics text.
//!
//! Source: the OpenMetrics 1.0 specification; escaping and form are the `prometheus-client`
//! crate's.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::families::families;
use super::family::{Family, PREFIX, Samples, seconds};
use super::snapshot::MetricsSnapshot;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of `snapshot`.
pub(super) fn render(snapshot: &MetricsSnapshot) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(AllFamilies(families(snapshot))));
    let mut text = String::new();
    // Writing to a string does not fail.
    if encode(&mut text, &registry).is_err() {
        text = "# EOF\n".to_owned();
    }
    text
}

#[derive(Debug)]
struct AllFamilies(Vec<Family>);

impl Collector for AllFamilies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|family| encode_family(&mut encoder, family))
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
    let (unit, kind) = match family.samples {
        Samples::Counts(_) => (None, MetricType::Counter),
        Samples::Times(_) => (Some(&Unit::Seconds), MetricType::Counter),
        Samples::Gauges(_) => (None, MetricType::Gauge),
        Samples::Histograms(_) => (None, MetricType::Histogram),
    };
    let mut encoder = encoder.encode_descriptor(&family.name, family.help, unit, kind)?;
    match &family.samples {
        Samples::Counts(counts) => {
            for (labels, count) in counts {
                let mut metric = encoder.encode_family(labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Samples::Times(times) => {
            for (labels, ns) in times {
                let mut metric = encoder.encode_family(labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(&seconds(*ns), None)?;
            }
        }
        Samples::Gauges(gauges) => {
            for (labels, value) in gauges {
                encoder.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        Samples::Histograms(histograms) => {
            for (labels, histogram) in histograms {
                let (sum, buckets) = (histogram.sum as f64, &histogram.buckets);
                let mut metric = encoder.encode_family(labels)?;
                metric.encode_histogram::<NoLabelSet>(sum, histogram.count, buckets, None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
