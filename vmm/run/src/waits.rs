//! How long vCPUs waited: test guests count waits in buckets, which are rebuilt and merged here as HDR histograms.

use std::collections::BTreeMap;

use baton_abi::testdev::{RESULT_WAIT_BUCKET, RESULT_WAIT_MAX_NS};
use baton_abi::wait_buckets::{BUCKETS, LONGEST_NS, last_ns};
use hdrhistogram::Histogram;
use serde::Serialize;

/// With one significant digit the histogram has the buckets of the guest.
const DIGITS: u8 = 1;

/// Where [`Waits::percentiles`] reads the distribution, percent; the longest wait follows. The points are close enough
/// for a curve.
const PERCENTILES: [f64; 12] = [
    50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99,
];

/// A distribution of waits. Quantiles are rounded up to the end of a bucket, by a sixteenth at most. The longest wait
/// is exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waits {
    /// `None` until something is counted.
    histogram: Option<Histogram<u64>>,
    /// The longest wait, nanoseconds.
    pub max_ns: u64,
}

/// Figures of a distribution of waits, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitFigures {
    /// Half of the waits were not longer.
    pub p50: u64,
    /// 99 % were not.
    pub p99: u64,
    /// 99.9 % were not.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Waits {
    /// The waits of one vCPU, from its results by key (`baton_abi::testdev::RESULT_*`).
    #[must_use]
    pub fn of_results(results: &BTreeMap<u32, u64>) -> Self {
        let mut waits = Self {
            max_ns: results.get(&RESULT_WAIT_MAX_NS).copied().unwrap_or(0),
            ..Self::default()
        };
        let reported = results.range(RESULT_WAIT_BUCKET..RESULT_WAIT_BUCKET + BUCKETS as u32);
        for (key, count) in reported {
            let bucket = (key - RESULT_WAIT_BUCKET) as usize;
            waits.count(last_ns(bucket), u32::try_from(*count).unwrap_or(u32::MAX));
        }
        waits
    }

    /// Counts `count` waits of `ns` nanoseconds. Does not change `max_ns`.
    pub fn count(&mut self, ns: u64, count: u32) {
        self.record(ns, u64::from(count));
    }

    /// The same with a larger count. The library adds counts without a check for overflow; those of a guest have 32 bits
    /// each, so no number of vCPUs and runs overflows.
    fn record(&mut self, ns: u64, count: u64) {
        if count == 0 {
            return;
        }
        if self.histogram.is_none() {
            // The library accepts these bounds.
            self.histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record_n(ns, count);
        }
    }

    /// Adds the waits of `other`.
    pub fn add(&mut self, other: &Self) {
        self.max_ns = self.max_ns.max(other.max_ns);
        if let Some(more) = &other.histogram {
            for bucket in more.iter_recorded() {
                self.record(bucket.value_iterated_to(), bucket.count_at_value());
            }
        }
    }

    /// The wait, nanoseconds, that `percent` of all waits do not exceed; 0 if there are no waits.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| {
            histogram
                .value_at_quantile(percent / 100.0)
                .min(self.max_ns)
        })
    }

    /// The figures that are reported.
    #[must_use]
    pub fn figures(&self) -> WaitFigures {
        WaitFigures {
            p50: self.percentile(50.0),
            p99: self.percentile(99.0),
            p999: self.percentile(99.9),
            max: self.max_ns,
        }
    }

    /// The distribution from its median to the longest wait: percentages, each with the wait in nanoseconds that so many
    /// waits do not exceed. `None` if there are no waits.
    #[must_use]
    pub fn percentiles(&self) -> Option<Vec<(f64, u64)>> {
        self.histogram.as_ref()?;
        let mut points: Vec<(f64, u64)> = PERCENTILES
            .map(|percent| (percent, self.percentile(percent)))
            .into();
        points.push((100.0, self.max_ns));
        Some(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_abi::wait_buckets::bucket;

    /// What a vCPU with these waits reports.
    fn reported(waits: &[u64]) -> BTreeMap<u32, u64> {
        let mut results = BTreeMap::new();
        for &ns in waits {
            let key = RESULT_WAIT_BUCKET + bucket(ns) as u32;
            *results.entry(key).or_default() += 1;
        }
        let max = waits.iter().max().copied().unwrap_or(0);
        results.insert(RESULT_WAIT_MAX_NS, max);
        results
    }

    fn of(waits: &[u64]) -> Waits {
        Waits::of_results(&reported(waits))
    }

    #[test]
    fn every_bucket_of_the_guest_is_one_of_the_histogram() {
        for number in 0..BUCKETS {
            let ns = last_ns(number);
            assert_eq!(of(&[ns, u64::MAX]).percentile(50.0), ns, "{number}");
        }
    }

    #[test]
    fn quantiles_are_at_most_a_sixteenth_too_long() {
        let waits: Vec<u64> = (1..=10_000).map(|n| n * 977).collect();
        let all = of(&waits);
        for percent in PERCENTILES {
            let exact = waits[(percent * 100.0).round() as usize - 1];
            let read = all.percentile(percent);
            assert!(
                (exact..=exact + exact / 16).contains(&read),
                "{percent} %: {read}, {exact}"
            );
        }
        assert_eq!(all.figures().max, 9_770_000);
    }

    #[test]
    fn merged_waits_are_those_of_both() {
        let (short, long) = ([10, 10, 20], [5_000, 90_000, 90_000]);
        let mut merged = of(&short);
        merged.add(&of(&long));
        merged.add(&Waits::default());
        assert_eq!(merged, of(&[short, long].concat()));
        assert_eq!((merged.percentile(50.0), merged.max_ns), (20, 90_000));
        let mut nothing = Waits::default();
        nothing.add(&of(&long));
        assert_eq!(nothing, of(&long));
    }

    #[test]
    fn percentiles_rise_to_the_longest_wait_and_never_beyond() {
        let points = of(&[1_000; 5]).percentiles().expect("waits");
        assert!(points.iter().all(|(_, ns)| *ns == 1_000));
        let waits: Vec<u64> = (0..5_000).map(|n| n * n).collect();
        let points = of(&waits).percentiles().expect("waits");
        assert!(points.is_sorted());
        assert_eq!(points.last(), Some(&(100.0, 4_999 * 4_999)));
        assert_eq!(Waits::default().percentiles(), None);
        assert_eq!(Waits::default().figures(), WaitFigures::default());
    }

    #[test]
    fn lies_do_not_overflow() {
        let lies: BTreeMap<u32, u64> = (0..0x1000).map(|key| (key, u64::MAX)).collect();
        let mut waits = Waits::of_results(&lies);
        waits.count(u64::MAX, u32::MAX);
        waits.add(&waits.clone());
        let figures = waits.figures();
        assert!(figures.p50 <= figures.p999 && figures.p999 <= figures.max);
    }
}
