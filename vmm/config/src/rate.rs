//! How much a guest's disk or network interface may do: token buckets, as options of `--disk` and
//! `--net`.
//!
//! `bandwidth=100M/s` is a bucket of 100 MiB that fills in a second, `bandwidth=10M/100ms` one of the same
//! rate that holds a tenth of it. `bandwidth-burst=1G` lies beside it once. The same with `ops` for
//! requests or frames.

use std::time::Duration;

use super::{ConfigError, fail};
use crate::units::{parse_bytes, parse_duration};

/// Shortest time in which a bucket fills: a thread comes back for tokens every millisecond at most, and
/// none shall run over meanwhile.
const SHORTEST_REFILL: Duration = Duration::from_millis(10);
/// Longest.
const LONGEST_REFILL: Duration = Duration::from_secs(3600);
/// Most tokens of a bucket: more than any device moves.
const MOST: u64 = 1 << 60;

/// A token bucket, full at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens that it holds, at least 1.
    pub size: u64,
    /// Time in which it fills, at least 10 ms.
    pub refill: Duration,
    /// Tokens beside it that are used first, once.
    pub burst: u64,
}

/// What one device may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes; `None` for any number.
    pub bandwidth: Option<Bucket>,
    /// Requests or frames; `None` for any number.
    pub ops: Option<Bucket>,
}

/// The options of one limit, read one by one.
#[derive(Debug, Default)]
pub(super) struct RateOptions {
    /// What stands before their names.
    prefix: &'static str,
    bandwidth: Rate,
    ops: Rate,
}

#[derive(Debug, Default)]
struct Rate {
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

    /// Takes the option `name` if it is one of these. False: it is another's.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, ConfigError> {
        let (rate, kind, burst) = match name.strip_prefix(self.prefix).unwrap_or_default() {
            "bandwidth" => (&mut self.bandwidth, Kind::Bytes, false),
            "bandwidth-burst" => (&mut self.bandwidth, Kind::Bytes, true),
            "ops" => (&mut self.ops, Kind::Ops, false),
            "ops-burst" => (&mut self.ops, Kind::Ops, true),
            _ => return Ok(false),
        };
        let bad = || {
            ConfigError(match burst {
                true => format!(
                    "{name} is '{value}', must be a number as in {name}={}",
                    kind.burst()
                ),
                false => format!(
                    "{name} is '{value}', must be a number and the time in which it comes anew, 10ms to \
                     60m, as in {name}={0}/s or {name}={0}/100ms",
                    kind.example()
                ),
            })
        };
        let twice = match burst {
            true => rate
                .burst
                .replace(kind.parse(value).ok_or_else(bad)?)
                .is_some(),
            false => {
                let parsed = parse_rate(value, kind).ok_or_else(bad)?;
                rate.rate.replace(parsed).is_some()
            }
        };
        match twice {
            true => fail(format!("{name} is given twice: give it once")),
            false => Ok(true),
        }
    }

    /// What they ask for.
    pub(super) fn limit(&self) -> Result<RateLimit, ConfigError> {
        let prefix = self.prefix;
        let bucket = |name: &str, rate: &Rate| match (rate.rate, rate.burst) {
            (Some((size, refill)), burst) => Ok(Some(Bucket {
                size,
                refill,
                burst: burst.unwrap_or(0),
            })),
            (None, Some(_)) => fail(format!(
                "{prefix}{name}-burst is a burst of no rate: give {prefix}{name} too"
            )),
            (None, None) => Ok(None),
        };
        Ok(RateLimit {
            bandwidth: bucket("bandwidth", &self.bandwidth)?,
            ops: bucket("ops", &self.ops)?,
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Bytes,
    Ops,
}

impl Kind {
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
        number.filter(|number| (1..=MOST).contains(number))
    }
}

/// `SIZE/s`, `SIZE/100ms`.
fn parse_rate(text: &str, kind: Kind) -> Option<(u64, Duration)> {
    let (size, time) = text.split_once('/')?;
    let refill = match time.starts_with(|c: char| c.is_ascii_digit()) {
        true => parse_duration(time),
        false => parse_duration(&format!("1{time}")),
    };
    let refill = refill
        .ok()
        .filter(|refill| (SHORTEST_REFILL..=LONGEST_REFILL).contains(refill))?;
    Some((kind.parse(size)?, refill))
}

#[cfg(test)]
mod tests {
    use super::super::{DiskConfig, NetConfig};
    use super::*;

    fn bucket(size: u64, refill_ms: u64, burst: u64) -> Option<Bucket> {
        Some(Bucket {
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
    fn options_that_make_no_sense_are_refused_with_what_would() {
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
            ("a,bandwith=1M/s", "'bandwith' is no option of a disk"),
            ("a,bandwidth=1M/s,x", "'x' is no option of a disk"),
            (",ro", "is no disk"),
            (",ops=1/s", "is no disk"),
        ] {
            let error = disk(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            (
                "tap=t,bandwidth=1M/s",
                "'bandwidth' is no option of a network interface",
            ),
            ("tap=t,rx-bandwidth=1M", "rx-bandwidth is '1M'"),
            ("tap=t,rx-ops-burst=5", "give rx-ops too"),
            ("tap=t,mac=1", "as in mac="),
            ("rx-ops=1/s", "is no network interface"),
        ] {
            let error = net(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
