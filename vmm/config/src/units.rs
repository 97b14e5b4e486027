//! Quantities as users write them, `50us`, `512M`, `0-3`, and as they are written back.

use std::time::Duration;

use thiserror::Error;
pub use vcpu_sched::format_ns;
use vcpu_sched::{ParseDurationError, ParseReservationError, parse_duration_ns};

/// A text that is not the quantity it should be. The message shows an example of one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    /// The text is not a duration.
    #[error(transparent)]
    Duration(#[from] ParseDurationError),
    /// The text is not a size.
    #[error("'{0}' is not a size: write a whole number and K, M, G or T, as in 512M")]
    Bytes(String),
    /// The text is not a list of CPUs.
    #[error(
        "'{0}' is not a list of CPUs: write numbers and ranges up to {MAX_CPU}, as in 0-3 or 0,2"
    )]
    Cpus(String),
    /// The text is not a reservation.
    #[error(transparent)]
    Reservation(#[from] ParseReservationError),
    /// The text is not the index of a vCPU and a reservation.
    #[error("'{0}' is not a vCPU's reservation: write index=budget/period, as in 0=1ms/100ms,hard")]
    VcpuReservation(String),
}

/// Highest host CPU number that a list may name.
pub const MAX_CPU: usize = 8191;

/// Reads `50us`, `4ms`, `10s`, `2m`, `100ns`.
///
/// # Errors
/// [`UnitError::Duration`] if the text has no unit or no whole number, or is out of range.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    Ok(parse_duration_ns(text).map(Duration::from_nanos)?)
}

/// `ns` nanoseconds to about three digits.
#[must_use]
pub fn readable_ns(ns: u64) -> String {
    let (unit, scale) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => ("us", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let hundredths = ns / (scale / 100);
    match hundredths {
        0..1_000 => format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100),
        1_000..10_000 => format!("{}.{}{unit}", hundredths / 100, hundredths % 100 / 10),
        _ => format!("{}{unit}", hundredths / 100),
    }
}

/// Reads `512M`, `1G`, `4096` (bytes). The units are powers of 1024.
///
/// # Errors
/// [`UnitError::Bytes`] if the text has no whole number or an unknown unit, or is out of range.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Bytes(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Writes `bytes` with the largest unit of which they are a whole number.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Reads `0-3`, `0,2`, `0-1,4`. The result is ascending and without repeats.
///
/// # Errors
/// [`UnitError::Cpus`] if the text is empty, not a list, has a range that runs backwards, or goes above
/// [`MAX_CPU`].
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, UnitError> {
    let bad = || UnitError::Cpus(text.to_owned());
    let number = |part: &str| -> Result<usize, UnitError> {
        let part = part.trim();
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        match part.parse::<usize>() {
            Ok(cpu) if cpu <= MAX_CPU => Ok(cpu),
            _ => Err(bad()),
        }
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(bad());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// Writes `cpus`, which are ascending, with ranges.
#[must_use]
pub fn format_cpus(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let length = rest
            .iter()
            .enumerate()
            .take_while(|(i, cpu)| **cpu == first + i)
            .count();
        parts.push(if length == 1 {
            first.to_string()
        } else {
            format!("{first}-{}", first + length - 1)
        });
        rest = &rest[length..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests;
