//! The reasons why one run of a victim fails.

use thiserror::Error;

use crate::error::BenchError;

/// One run of a victim failed.
#[derive(Debug, Error)]
pub enum AttackError {
    /// The run failed for a reason that would make every other run fail, too.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// This host cannot make the run; the text is the reason.
    #[error("{0}")]
    Refused(String),
    /// The run did not end well; the text is what happened.
    #[error("{0}")]
    Failed(String),
}
