//! Medians, spreads and ratios.

use serde::Serialize;

/// A median, with the smallest and the largest value.
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
    /// The spread of `values`; all zero if there are none.
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

/// `count` in `ns` nanoseconds as a rate per second; 0 if no time passed.
#[must_use]
pub fn per_second(count: u64, ns: u64) -> u64 {
    (u128::from(count) * 1_000_000_000)
        .checked_div(u128::from(ns))
        .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
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
}
