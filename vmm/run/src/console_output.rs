//! Where guests print to.

use std::io;
use std::time::Duration;

use baton_config::{RunConfig, SummaryForm};
use baton_machine::console::{ConsolePort, ConsoleThread};
use baton_os::signals::StopSignals;

use crate::error::RunError;

/// How long to wait at the end for the reader of the console, where it is not the reader of the summary.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread that writes what guests print.
pub(crate) struct ConsoleOutput {
    /// `None` if what guests print is discarded.
    thread: Option<ConsoleThread>,
    summary: SummaryForm,
}

impl ConsoleOutput {
    /// Starts the thread. It writes to standard output, or to standard error if standard output is to be one JSON
    /// object.
    pub(crate) fn start(config: &RunConfig) -> Result<Self, RunError> {
        let thread = match (config.quiet, config.summary) {
            (true, _) => Ok(None),
            (false, SummaryForm::Text) => ConsoleThread::spawn(io::stdout()).map(Some),
            (false, SummaryForm::Json) => ConsoleThread::spawn(io::stderr()).map(Some),
        };
        Ok(Self {
            thread: thread.map_err(RunError::host("the console's thread"))?,
            summary: config.summary,
        })
    }

    /// A port for a guest, whose lines begin with `prefix`.
    pub(crate) fn port(&self, prefix: String) -> ConsolePort {
        match &self.thread {
            Some(thread) => thread.port(prefix),
            None => ConsolePort::discard(),
        }
    }

    /// Writes what is left. Another signal ends that.
    pub(crate) fn finish(self, signals: Option<&StopSignals>) {
        let Some(thread) = self.thread else { return };
        // A summary as text follows what guests print, and waits for the same reader.
        let apart = self.summary == SummaryForm::Json;
        let stopped = || signals.is_some_and(StopSignals::take);
        thread.finish(|stuck| stopped() || (apart && stuck >= PATIENCE));
    }
}
