//! The buckets in which the test guest counts waits: log-linear, as in an HDR histogram of one
//! significant digit. Every power of two has [`STEPS`] buckets of equal width, so a bucket is at most
//! a sixteenth of the times in it wide; times below 2 * [`STEPS`] ns have a bucket each.

/// Buckets in each power of two.
pub const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 4;
/// Times from 2^36 ns (69 s) are counted in the last bucket.
const TIME_BITS: u32 = 36;
/// Longest time that has a bucket of its own, nanoseconds.
pub const LONGEST_NS: u64 = (1 << TIME_BITS) - 1;
/// Number of buckets.
pub const BUCKETS: usize = (TIME_BITS - STEP_BITS + 1) as usize * STEPS;

/// The bucket, below [`BUCKETS`], that counts a wait of `ns` nanoseconds.
#[must_use]
#[inline]
pub const fn bucket(ns: u64) -> usize {
    let ns = if ns < LONGEST_NS { ns } else { LONGEST_NS };
    // The highest bit and the STEP_BITS below it stay; a time with fewer bits stays whole.
    let shift = (ns | STEPS as u64).ilog2() - STEP_BITS;
    shift as usize * STEPS + (ns >> shift) as usize
}

/// The longest time that `bucket` counts, nanoseconds. [`LONGEST_NS`] for the last bucket and for numbers
/// of no bucket.
#[must_use]
pub const fn last_ns(bucket: usize) -> u64 {
    if bucket >= BUCKETS {
        return LONGEST_NS;
    }
    let shift = (bucket / STEPS).saturating_sub(1);
    (((bucket - shift * STEPS) as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut first = 0;
        for number in 0..BUCKETS {
            let last = last_ns(number);
            assert!(first <= last, "{number}");
            assert_eq!((bucket(first), bucket(last)), (number, number));
            assert!(
                (last - first) * STEPS as u64 <= first,
                "{number} is too wide"
            );
            first = last + 1;
        }
        assert_eq!(first, LONGEST_NS + 1);
    }

    #[test]
    fn short_times_are_exact_and_endless_ones_are_in_the_last_bucket() {
        for ns in 0..2 * STEPS as u64 {
            assert_eq!((bucket(ns), last_ns(bucket(ns))), (ns as usize, ns));
        }
        assert_eq!(bucket(1023) + 1, bucket(1024));
        assert_eq!(bucket(1024), bucket(1024 + 63));
        assert_eq!(bucket(LONGEST_NS), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(last_ns(usize::MAX), LONGEST_NS);
    }
}
