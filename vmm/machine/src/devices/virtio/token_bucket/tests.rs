use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: Ns = 1_000_000;
const SECOND: Ns = 1000 * MS;

fn bucket(size: u64, refill: Ns, burst: u64) -> BucketConfig {
    BucketConfig {
        size,
        refill: Duration::from_nanos(refill),
        burst,
    }
}

fn bytes(size: u64, burst: u64) -> TokenBuckets {
    let config = RateLimit {
        bandwidth: Some(bucket(size, SECOND, burst)),
        ops: None,
    };
    TokenBuckets::new(&config, 0).expect("a limit")
}

#[test]
fn a_device_without_a_limit_has_no_buckets() {
    assert!(TokenBuckets::new(&RateLimit::default(), 0).is_none());
}

#[test]
fn a_full_bucket_is_used_up_at_once_and_then_fills_evenly() {
    let mut buckets = bytes(1000, 0);
    assert_eq!(buckets.take(600, 0), Ok(()));
    assert_eq!(buckets.take(400, 0), Ok(()));
    assert_eq!(buckets.take(1, 0), Err(MS));
    assert_eq!(buckets.take(250, 100 * MS), Err(250 * MS));
    assert_eq!(buckets.take(250, 250 * MS), Ok(()));
    // The bucket holds no more than its size.
    assert_eq!(buckets.take(1000, 100 * SECOND), Ok(()));
    assert_eq!(buckets.take(1, 100 * SECOND), Err(100 * SECOND + MS));
}

#[test]
fn the_burst_is_used_first_and_once() {
    let mut buckets = bytes(1000, 500);
    assert_eq!(buckets.take(500, 0), Ok(()));
    assert_eq!(buckets.take(1000, 0), Ok(()));
    assert_eq!(buckets.take(1500, SECOND), Ok(()), "the bucket is full");
    assert_eq!(
        buckets.take(1, SECOND),
        Err(SECOND + 501 * MS),
        "a debt of 500"
    );
}

#[test]
fn a_request_larger_than_the_bucket_is_admitted_when_it_is_full_and_paid_off_later() {
    let mut buckets = bytes(1000, 0);
    assert_eq!(buckets.take(1, 0), Ok(()));
    assert_eq!(buckets.take(5000, 0), Err(MS));
    assert_eq!(buckets.take(5000, MS), Ok(()));
    assert_eq!(buckets.take(1, MS), Err(MS + 4001 * MS));
}

#[test]
fn a_request_without_one_kind_of_tokens_takes_none_of_the_other() {
    let config = RateLimit {
        bandwidth: Some(bucket(100, SECOND, 0)),
        ops: Some(bucket(2, SECOND, 0)),
    };
    let mut buckets = TokenBuckets::new(&config, 0).expect("a limit");
    assert_eq!(buckets.take(90, 0), Ok(()));
    assert_eq!(buckets.take(20, 0), Err(100 * MS));
    assert_eq!(buckets.take(10, 0), Ok(()), "an operation is left");
    assert_eq!(buckets.take(0, 0), Err(500 * MS));
}

#[test]
fn extreme_numbers_do_no_harm() {
    let config = RateLimit {
        bandwidth: Some(bucket(u64::MAX, u64::MAX, u64::MAX)),
        ops: Some(bucket(1, u64::MAX, 0)),
    };
    let mut buckets = TokenBuckets::new(&config, 0).expect("a limit");
    assert_eq!(buckets.take(u64::MAX, u64::MAX), Ok(()));
    assert_eq!(
        buckets.take(u64::MAX, 0),
        Err(u64::MAX),
        "a clock that goes back"
    );
}

/// A request of so many bytes, made so many ns after the one before, or as soon as it is admitted.
type TimedRequest = (u64, Option<Ns>);

fn requests() -> impl Strategy<Value = Vec<TimedRequest>> {
    proptest::collection::vec((0..5000u64, proptest::option::of(0..300 * MS)), 1..200)
}

proptest! {
    #[test]
    fn never_more_is_admitted_than_bucket_burst_and_rate_allow(
        size in 1..2000u64,
        refill in 10 * MS..2 * SECOND,
        burst in 0..3000u64,
        requests in requests(),
    ) {
        let config = RateLimit { bandwidth: Some(bucket(size, refill, burst)), ops: None };
        let mut buckets = TokenBuckets::new(&config, 0).expect("a limit");
        let (mut now, mut passed) = (0, 0u64);
        for (bytes, wait) in requests {
            now += wait.unwrap_or(0);
            let taken = match buckets.take(bytes, now) {
                // The time in the error is enough.
                Err(ready) if wait.is_none() => {
                    prop_assert!(ready > now);
                    let before = buckets.clone().take(bytes, ready - 1);
                    prop_assert!(before.is_err(), "it could have come earlier");
                    now = ready;
                    prop_assert_eq!(buckets.take(bytes, now), Ok(()));
                    true
                }
                taken => taken.is_ok(),
            };
            if taken {
                let filled = u128::from(size) * u128::from(now) / u128::from(refill);
                let allowed = u128::from(size + burst) + filled;
                let debt = bytes.saturating_sub(size);
                prop_assert!(u128::from(passed + bytes) <= allowed + u128::from(debt));
                passed += bytes;
            }
        }
    }

    #[test]
    fn a_queue_that_is_never_empty_gets_its_rate(
        size in 1..2000u64,
        refill in 10 * MS..2 * SECOND,
        request in 1..3000u64,
    ) {
        let config = RateLimit { bandwidth: Some(bucket(size, refill, 0)), ops: None };
        let mut buckets = TokenBuckets::new(&config, 0).expect("a limit");
        let (mut now, mut passed) = (0, 0u64);
        while passed < 100 * size {
            match buckets.take(request, now) {
                Ok(()) => passed += request,
                Err(ready) => now = ready,
            }
        }
        let filled = u128::from(size) * u128::from(now) / u128::from(refill);
        prop_assert!(u128::from(passed) + u128::from(size) >= filled, "{passed} of {filled}");
    }
}
