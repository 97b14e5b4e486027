//! Values of single keys.

use std::time::Duration;

use crate::error::{ConfigError, fail};
use crate::units::{UnitError, parse_duration};

/// Reads `off` or a duration.
///
/// # Errors
/// [`UnitError::Duration`] if the text is neither.
pub fn parse_defer(text: &str) -> Result<Option<Duration>, UnitError> {
    match text.trim() {
        "off" => Ok(None),
        text => parse_duration(text).map(Some),
    }
}

/// Reads `0` or a duration.
///
/// # Errors
/// [`UnitError::Duration`] if the text is neither.
pub fn parse_shutdown_timeout(text: &str) -> Result<Duration, UnitError> {
    match text.trim() {
        "0" => Ok(Duration::ZERO),
        text => parse_duration(text),
    }
}

/// The value of the key `name`, or an error that names the key.
pub(super) fn field<T, E: Into<UnitError>>(
    name: &str,
    value: Result<T, E>,
) -> Result<T, ConfigError> {
    value.map_err(|error| ConfigError(format!("{name}: {}", error.into())))
}

/// Reads the value of the key `name`, one of the words that clap accepts for `T`.
pub(super) fn choice<T: clap::ValueEnum>(name: &str, text: &str) -> Result<T, ConfigError> {
    T::from_str(text, false).map_err(|_| {
        let words: Vec<String> = T::value_variants()
            .iter()
            .filter_map(clap::ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        ConfigError(format!(
            "{name} is '{text}', must be one of {}",
            words.join(", ")
        ))
    })
}

/// Reads the value of the key `name`, a list with an entry for each of `cpus` vCPUs. An empty entry
/// stands for `None`; `empty_means` is the name of that in the error.
pub(super) fn for_each_vcpu<T, E: Into<UnitError>>(
    name: &str,
    list: &[String],
    cpus: usize,
    empty_means: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<Option<T>>, ConfigError> {
    if list.len() != cpus {
        return fail(format!(
            "{name} has {} entries, must have one for each of {cpus} vCPUs (\"\" for {empty_means})",
            list.len()
        ));
    }
    list.iter()
        .map(|text| match text.trim() {
            "" => Ok(None),
            text => field(name, parse(text)).map(Some),
        })
        .collect()
}
