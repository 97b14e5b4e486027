//! Medians, spreads and the distribution of waits.

use serde::Serialize;

/// Number of buckets of a [`Waits`].
pub const BUCKETS: usize = 64;

/// A median and what lay around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The value in the middle; between two values their mean, rounded down.
    pub median: u64,
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    /// Of any values; all zero if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self {
            median: low + (high - low) / 2,
            min,
            max,
        }
    }
}

/// The median of `values`, rounded to four digits after the point; 0 if there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    rounded(middle)
}

/// `part / whole`, rounded to four digits after the point; `None` if `whole` is 0.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| rounded(part as f64 / whole as f64))
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// `count * 1e9 / ns`: so many per second; 0 if no time passed.
#[must_use]
pub fn per_second(count: u64, ns: u64) -> u64 {
    (u128::from(count) * 1_000_000_000)
        .checked_div(u128::from(ns))
        .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// How long waits were: bucket k counts those of 2^k ns up to, not including, 2^(k+1) ns (bucket 0
/// also those of 0 ns), and the longest is known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// The counts.
    pub buckets: [u64; BUCKETS],
    /// The longest, nanoseconds.
    pub max_ns: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            max_ns: 0,
        }
    }
}

/// Figures of a distribution of waits, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitFigures {
    /// Half of the waits were shorter.
    pub p50: u64,
    /// 99 % were.
    pub p99: u64,
    /// 99.9 % were.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Waits {
    /// Adds the waits of `other`.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.saturating_add(*more);
        }
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The wait that `per_mille` of all waits do not exceed: the place in its bucket is
    /// interpolated, as if the waits in a bucket lay at equal distances, and never above the longest
    /// wait. Off by less than a factor of two.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> u64 {
        // No run has so many; the bound keeps the products below whole.
        let counts = self.buckets.map(|count| u128::from(count.min(1 << 50)));
        let total: u128 = counts.iter().sum();
        // The rank, times 1000 to stay whole.
        let rank = total * u128::from(per_mille.min(1000));
        let mut below = 0u128;
        for (k, count) in counts.iter().enumerate() {
            let count = count * 1000;
            if count > 0 && below + count >= rank {
                let low = if k == 0 { 0 } else { 1u128 << k };
                let width = (1u128 << (k + 1)) - low;
                let value = low + width * (rank - below) / count;
                return u64::try_from(value).unwrap_or(u64::MAX).min(self.max_ns);
            }
            below += count;
        }
        0
    }

    /// The figures that are reported.
    #[must_use]
    pub fn figures(&self) -> WaitFigures {
        WaitFigures {
            p50: self.quantile(500),
            p99: self.quantile(990),
            p999: self.quantile(999),
            max: self.max_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two() {
        let spread = |values: &[u64]| {
            let Spread { median, min, max } = Spread::of(values.iter().copied());
            (median, min, max)
        };
        assert_eq!(spread(&[]), (0, 0, 0));
        assert_eq!(spread(&[7]), (7, 7, 7));
        assert_eq!(spread(&[9, 1, 5]), (5, 1, 9));
        assert_eq!(spread(&[9, 1, 5, 8]), (6, 1, 9));
        assert_eq!(
            spread(&[u64::MAX, u64::MAX]),
            (u64::MAX, u64::MAX, u64::MAX)
        );
        assert_eq!(median([0.3, 0.1, f64::NAN, 0.2]), 0.2);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn ratio_to_nothing_is_none() {
        assert_eq!(ratio(1, 3), Some(0.3333));
        assert_eq!(ratio(1, 0), None);
        assert_eq!(per_second(3, 1_500_000_000), 2);
        assert_eq!(per_second(3, 0), 0);
    }

    #[test]
    fn quantiles_are_interpolated_within_a_bucket() {
        let mut waits = Waits {
            max_ns: 1_000_000,
            ..Waits::default()
        };
        waits.buckets[10] = 100;
        assert_eq!(waits.quantile(500), 1024 + 512);
        assert_eq!(waits.quantile(1000), 2048);
        waits.buckets[4] = 900;
        assert_eq!(waits.quantile(500), 16 + 16 * 500 / 900);
        assert_eq!(waits.quantile(990), 1024 + 1024 * 90 / 100);
    }

    #[test]
    fn no_quantile_is_above_the_longest_wait() {
        let mut waits = Waits {
            max_ns: 1100,
            ..Waits::default()
        };
        waits.buckets[10] = 3;
        let figures = waits.figures();
        assert_eq!((figures.p50, figures.p999, figures.max), (1100, 1100, 1100));
        assert_eq!(Waits::default().figures(), WaitFigures::default());
    }

    #[test]
    fn impossible_reports_do_not_overflow() {
        let mut waits = Waits {
            buckets: [u64::MAX; BUCKETS],
            max_ns: u64::MAX,
        };
        waits.add(&waits.clone());
        assert!(waits.figures().p50 <= waits.figures().p999);
        assert_eq!(waits.quantile(1000), u64::MAX);
    }
}
