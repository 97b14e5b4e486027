//! Why a trace could not be written.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A trace could not be written, or not in full.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file could not be opened or written.
    #[error("cannot write the trace to {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        source: io::Error,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the thread that writes the trace: {0}")]
    Thread(io::Error),
    /// The writer's thread panicked.
    #[error("the thread that writes the trace has failed; the trace in {} is not whole", .0.display())]
    Failed(PathBuf),
    /// The file took no more bytes: the writer was left behind at the end of the run.
    #[error(
        "the trace in {} is not whole: for {} s nothing could be written to it",
        path.display(),
        patience.as_secs()
    )]
    Stuck {
        /// The file.
        path: PathBuf,
        /// How long the writer made no progress.
        patience: Duration,
    },
    /// The writer did not keep up with the records.
    #[error(
        "the trace in {} lacks {lost} records: the disk or the CPUs were too busy for its writer",
        path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// Records that were dropped.
        lost: u64,
    },
}
