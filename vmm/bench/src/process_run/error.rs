//! Why a run as processes has failed.

use std::io;

use thiserror::Error;

use crate::scratch_dir::ScratchError;

/// A run as processes has failed.
#[derive(Debug, Error)]
pub enum ProcessRunError {
    /// A file of the run could not be written.
    #[error(transparent)]
    Files(#[from] ScratchError),
    /// The host refused something.
    #[error("the benchmark cannot {what}: {source}")]
    Host {
        /// What the benchmark was about to do.
        what: &'static str,
        /// The host's reason.
        source: io::Error,
    },
    /// The pool has ended before its guests, or has not become ready.
    #[error("baton pool {what}; its log ends with: {log}")]
    Pool {
        /// What happened.
        what: &'static str,
        /// The end of its log.
        log: String,
    },
    /// A guest's process has printed no summary.
    #[error("baton vm of guest {guest} printed no summary ({status}); its output ends with: {log}")]
    Guest {
        /// The guest.
        guest: String,
        /// How its process ended.
        status: String,
        /// The end of its standard error.
        log: String,
    },
}

impl ProcessRunError {
    /// For `map_err` on an attempt to do `what`.
    pub(super) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
