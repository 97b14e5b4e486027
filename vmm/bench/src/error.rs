//! The reasons why a whole benchmark fails.

use std::io;
use std::path::{Path, PathBuf};

use baton_run::RunError;
use thiserror::Error;

use crate::process_run::ProcessRunError;
use crate::scratch_dir::ScratchError;

/// A benchmark could not be made, or its results could not be written.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A run failed for a reason that would make every other run on this host fail, too.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run whose guests are processes of their own failed.
    #[error(transparent)]
    ProcessRun(#[from] ProcessRunError),
    /// The CPU affinity of this process, which is the default pool, could not be read.
    #[error("cannot read which CPUs this process may use ({0}): give --host-cpus")]
    Affinity(io::Error),
    /// This program could not be started as a process of its own for one run.
    #[error("cannot start baton run: {0}")]
    Start(io::Error),
    /// Two outputs were both directed to standard output.
    #[error("only one of --json and --csv can go to standard output: give a file for the other")]
    TwoToStdout,
    /// The HTML page was directed to standard output.
    #[error("--html takes a file, as in --html report.html")]
    HtmlToStdout,
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file of a run could not be written.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Two Linux kernels were given with the same name.
    #[error("there are two kernels {0}: give each a name of its own, as in --kernel NAME=FILE")]
    KernelName(String),
    /// No Linux kernel without our patches was given, but a policy that needs one.
    #[error(
        "there is no kernel without patches to measure: give --stock FILE or --kernel NAME=FILE"
    )]
    NoUnpatchedKernel,
    /// No Linux kernel with our patches was given, but the policy that needs it.
    #[error("the policy baton-patched needs a kernel with our patches: give --patched FILE")]
    NoPatchedKernel,
    /// No Linux guest reported all of its works; the text is the end of what the last one printed.
    #[error("no guest reported its results; the last one ended with:\n{0}")]
    NoResults(String),
    /// The results could not be serialized.
    #[error("cannot write the results as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl BenchError {
    /// For `map_err` on an attempt to write `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}
