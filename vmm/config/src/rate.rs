//! Rate limits of a guest's disk or network interface: token buckets, written as options of `--disk` and
//! `--net`.
//!
//! `bandwidth=100M/s` is a bucket of 100 MiB that fills in a second. `bandwidth=10M/100ms` has the same
//! rate and holds a tenth of that. `bandwidth-burst=1G` adds 1 GiB that can be used once. The same options
//! with `ops` count requests or frames.

use std::time::Duration;

use crate::error::{ConfigError, fail};
use crate::units::{parse_bytes, parse_duration};

/// Shortest time in which a bucket fills. A device's thread fetches tokens at most once a millisecond, and
/// no bucket may overflow in between.
const SHORTEST_REFILL: Duration = Duration::from_millis(10);
/// Longest time in which a bucket fills.
const LONGEST_REFILL: Duration = Duration::from_secs(3600);
/// Most tokens of a bucket: more than any device uses.
const MAX_TOKENS: u64 = 1 << 60;

/// A token bucket, full at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Tokens in a full bucket, at least 1.
    pub size: u64,
    /// Time in which an empty bucket fills, at least 10 ms.
    pub refill: Duration,
    /// Tokens in addition to the bucket. They are used first, and never refilled.
    pub burst: u64,
}

/// The rate limits of one device, or of one direction of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes; `None` for no limit.
    pub bandwidth: Option<BucketConfig>,
    /// Requests or frames; `None` for no limit.
    pub ops: Option<BucketConfig>,
}

/// The options that make one [`RateLimit`], read one by one.
#[derive(Debug, Default)]
pub(super) struct RateOptions {
    /// How the names of the options begin: `rx-`, for one.
    prefix: &'static str,
    bandwidth: BucketOptions,
    ops: BucketOptions,
}

/// The options that make one [`BucketConfig`].
#[derive(Debug, Default)]
struct BucketOptions {
    rate: Option<(u64, Duration)>,
    burst: Option<u64>,
}

impl RateOptions {
    /// Options with names that begin with `prefix`; none yet.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            ..Self::default()
        }
    }

    /// Reads the option `name` if it is one of these, and returns whether it is.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, ConfigError> {
        let (options, unit, is_burst) = match name.strip_prefix(self.prefix).unwrap_or_default() {
            "bandwidth" => (&mut self.bandwidth, Unit::Bytes, false),
            "bandwidth-burst" => (&mut self.bandwidth, Unit::Bytes, true),
            "ops" => (&mut self.ops, Unit::Ops, false),
            "ops-burst" => (&mut self.ops, Unit::Ops, true),
            _ => return Ok(false),
        };
        let is_repeated = if is_burst {
            let burst = parse_burst(name, value, unit)?;
            options.burst.replace(burst).is_some()
        } else {
            let rate = parse_rate(name, value, unit)?;
            options.rate.replace(rate).is_some()
        };
        match is_repeated {
            true => fail(format!("{name} is given twice: give it once")),
            false => Ok(true),
        }
    }

    /// The limit that the options make together.
    pub(super) fn limit(&self) -> Result<RateLimit, ConfigError> {
        let prefix = self.prefix;
        let bucket = |name: &str, rate: &BucketOptions| match (rate.rate, rate.burst) {
            (Some((size, refill)), burst) => Ok(Some(BucketConfig {
                size,
                refill,
                burst: burst.unwrap_or(0),
            })),
            (None, Some(_)) => fail(format!(
                "{prefix}{name}-burst is a burst without a rate: give {prefix}{name} too"
            )),
            (None, None) => Ok(None),
        };
        Ok(RateLimit {
            bandwidth: bucket("bandwidth", &self.bandwidth)?,
            ops: bucket("ops", &self.ops)?,
        })
    }
}

/// What a bucket's tokens stand for.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Ops,
}

impl Unit {
    fn example(self) -> &'static str {
        match self {
            Self::Bytes => "100M",
            Self::Ops => "5000",
        }
    }

    fn burst(self) -> &'static str {
        match self {
            Self::Bytes => "1G",
            Self::Ops => "20000",
        }
    }

    fn parse(self, text: &str) -> Option<u64> {
        let number = match self {
            Self::Bytes => parse_bytes(text).ok(),
            Self::Ops => text.parse().ok(),
        };
        number.filter(|number| (1..=MAX_TOKENS).contains(number))
    }
}

/// Reads `SIZE`, the value of the option `name`.
fn parse_burst(name: &str, text: &str, unit: Unit) -> Result<u64, ConfigError> {
    unit.parse(text).ok_or_else(|| {
        ConfigError(format!(
            "{name} is '{text}', must be a number as in {name}={}",
            unit.burst()
        ))
    })
}

/// Reads `SIZE/s` or `SIZE/100ms`, the value of the option `name`.
fn parse_rate(name: &str, text: &str, unit: Unit) -> Result<(u64, Duration), ConfigError> {
    let parsed = text.split_once('/').and_then(|(size, time)| {
        let refill = match time.starts_with(|c: char| c.is_ascii_digit()) {
            true => parse_duration(time),
            false => parse_duration(&format!("1{time}")),
        };
        let refill = refill.ok()?;
        let fits = (SHORTEST_REFILL..=LONGEST_REFILL).contains(&refill);
        Some((unit.parse(size)?, refill)).filter(|_| fits)
    });
    parsed.ok_or_else(|| {
        ConfigError(format!(
            "{name} is '{text}', must be a number and the time in which so much is allowed again, 10ms to \
             60m, as in {name}={0}/s or {name}={0}/100ms",
            unit.example()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskConfig;
    use crate::net::NetConfig;

    fn bucket(size: u64, refill_ms: u64, burst: u64) -> Option<BucketConfig> {
        Some(BucketConfig {
            size,
            refill: Duration::from_millis(refill_ms),
            burst,
        })
    }

    fn disk(text: &str) -> Result<DiskConfig, ConfigError> {
        text.parse()
    }

    fn net(text: &str) -> Result<NetConfig, ConfigError> {
        text.parse()
    }

    #[test]
    fn a_disk_has_options_in_any_order() {
        let expected = DiskConfig {
            path: "root.img".into(),
            read_only: true,
            serial: None,
            limit: RateLimit {
                bandwidth: bucket(100 << 20, 1000, 1 << 30),
                ops: bucket(500, 100, 0),
            },
        };
        for text in [
            "root.img,bandwidth=100M/s,bandwidth-burst=1G,ops=500/100ms,ro",
            "root.img,ro,ops=500/100ms,bandwidth-burst=1G,bandwidth=100M/1s",
        ] {
            assert_eq!(disk(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn a_disk_without_options_may_have_commas_in_its_path() {
        let path = |text: &str| disk(text).map(|disk| (disk.path, disk.limit));
        for text in ["a,b.img", "ro,a"] {
            assert_eq!(path(text), Ok((text.into(), RateLimit::default())));
        }
        assert_eq!(
            path("a,b.img,ro").map(|(path, _)| path),
            Ok("a,b.img".into())
        );
    }

    #[test]
    fn an_interface_has_limits_for_each_direction() {
        let net = net(
            "tap=tap0,rx-ops=10/s,mac=52:54:00:12:34:56,tx-bandwidth=1M/s,tx-bandwidth-burst=2M",
        )
        .expect("an interface");
        assert_eq!(net.mac, Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!((net.rx.bandwidth, net.rx.ops), (None, bucket(10, 1000, 0)));
        assert_eq!(
            (net.tx.bandwidth, net.tx.ops),
            (bucket(1 << 20, 1000, 2 << 20), None)
        );
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_an_example_that_does() {
        for (text, part) in [
            ("a,bandwidth=100M", "as in bandwidth=100M/s"),
            ("a,bandwidth=0/s", "as in bandwidth=100M/s"),
            ("a,bandwidth=1M/1ms", "10ms to 60m"),
            ("a,bandwidth=1M/2h", "10ms to 60m"),
            ("a,bandwidth=16777216T/s", "as in bandwidth=100M/s"),
            ("a,ops=5K/s", "as in ops=5000/s"),
            ("a,ops=many/s", "as in ops=5000/s"),
            ("a,ops-burst=many,ops=1/s", "as in ops-burst=20000"),
            ("a,ops-burst=5", "give ops too"),
            ("a,ops=1/s,ops=2/s", "given twice"),
            ("a,bandwith=1M/s", "'bandwith' is not an option of a disk"),
            ("a,bandwidth=1M/s,x", "'x' is not an option of a disk"),
            (",ro", "is not a disk"),
            (",ops=1/s", "is not a disk"),
        ] {
            let error = disk(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            (
                "tap=t,bandwidth=1M/s",
                "'bandwidth' is not an option of a network interface",
            ),
            ("tap=t,rx-bandwidth=1M", "rx-bandwidth is '1M'"),
            ("tap=t,rx-ops-burst=5", "give rx-ops too"),
            ("tap=t,mac=1", "as in mac="),
            ("rx-ops=1/s", "is not a network interface"),
        ] {
            let error = net(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
