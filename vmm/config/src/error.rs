//! The error of everything in this crate that reads or checks a configuration.

use thiserror::Error;

/// A configuration that cannot run. The text is one sentence: what is wrong, and what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A refusal with this sentence.
pub(crate) fn fail<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}
