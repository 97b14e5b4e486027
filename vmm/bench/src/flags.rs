//! The flags that several benchmarks share, and what their values mean.

use std::path::Path;
use std::time::Duration;

use baton_config::units;
use baton_config::values::CpuList;
use baton_os::sys;

use crate::error::BenchError;

/// Shortest run: in a shorter one, most of the time would go into starting the guest.
const MIN_TIME: Duration = Duration::from_millis(10);
/// Longest run.
const MAX_TIME: Duration = Duration::from_secs(3600);

/// Parses `2`, `0.5` or `500ms` as the length of a run.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let time = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => units::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if (MIN_TIME..=MAX_TIME).contains(&time) {
        Ok(time)
    } else {
        Err("must be 10ms to 60m".to_owned())
    }
}

/// Whether `path` stands for standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// The values that the user gave, each once, or else those of `default`.
pub fn distinct<T: Clone + PartialEq>(given: &[T], default: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in if given.is_empty() { default } else { given } {
        if !distinct.contains(value) {
            distinct.push(value.clone());
        }
    }
    distinct
}

/// The host CPUs of `--host-cpus`, or else all that this process may use.
///
/// # Errors
/// [`BenchError::Affinity`], if the default cannot be read.
pub fn host_cpus(given: Option<&CpuList>) -> Result<Vec<usize>, BenchError> {
    match given {
        Some(CpuList(cpus)) => Ok(cpus.clone()),
        None => sys::affinity().map_err(BenchError::Affinity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        assert_eq!(parse_seconds("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("2"), Ok(Duration::from_secs(2)));
        for bad in ["1ms", "-1", "nan", "2h", "7200", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_that_is_given_twice_counts_once() {
        assert_eq!(distinct(&[2, 1, 2], &[7]), [2, 1]);
        assert_eq!(distinct(&[], &[7, 7]), [7]);
    }
}
