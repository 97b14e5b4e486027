//! Samples under one name, in no particular format.

/// What begins every name.
pub(super) const PREFIX: &str = "baton";

/// Names and values that tell the samples of a family apart.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Samples of one kind under one name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    /// The name without [`PREFIX`], unit, and the ending of counters or buckets.
    pub(super) name: String,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Samples {
    /// Numbers that only grow.
    Counts(Vec<(Labels, u64)>),
    /// Times that only grow, ns. Text has them in seconds.
    Times(Vec<(Labels, u64)>),
    /// Values that go up and down.
    Gauges(Vec<(Labels, f64)>),
    Histograms(Vec<(Labels, Histogram)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// For each bucket its upper bound and how many values it holds. Values of lower buckets are not counted
    /// again, and the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum: u64,
}

/// `ns` nanoseconds in seconds, as text has times.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
