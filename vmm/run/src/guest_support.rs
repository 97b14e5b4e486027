//! What the guests of a process need beside a pool: from before the first is created until the last is taken apart.

use std::sync::Arc;

use baton_config::RunConfig;
use baton_host::runner::ReadyGuest;
use baton_machine::reaper::ReaperThread;
use baton_os::signals::StopSignals;
use kvm_ioctls::Kvm;

use crate::console_output::ConsoleOutput;
use crate::error::RunError;
use crate::guests::{Creation, GuestFactory};
use crate::restart::{ConsoleLeft, Lives};
use crate::run_end::RunEnd;
use crate::summary::RunSummary;

/// Consoles, the thread that takes guests apart, and the event at their end.
pub(crate) struct GuestSupport {
    // Before the consoles, which print what guests print when they are taken apart.
    reaper: ReaperThread,
    console: ConsoleOutput,
    pub(crate) end: RunEnd,
}

impl GuestSupport {
    /// That of the guests of `config`.
    ///
    /// # Errors
    /// If a console cannot be opened, or the host refuses a thread or an event.
    pub(crate) fn start(config: &RunConfig) -> Result<Self, RunError> {
        let console = ConsoleOutput::start(config)?;
        let end = RunEnd::new(config.awaited().count()).map_err(RunError::host("an event"))?;
        let reaper =
            ReaperThread::spawn().map_err(RunError::host("the thread that takes guests apart"))?;
        Ok(Self {
            end,
            console,
            reaper,
        })
    }

    /// Creates the guests of `config`.
    pub(crate) fn factory<'a>(
        &'a self,
        config: &'a RunConfig,
        creation: Creation<'a>,
    ) -> GuestFactory<'a> {
        GuestFactory {
            config,
            console: &self.console,
            reaper: &self.reaper,
            creation,
        }
    }

    /// Creates all guests of `factory`, whose lives begin.
    ///
    /// # Errors
    /// If one of them cannot be created.
    pub(crate) fn create<'a>(
        &self,
        factory: &'a GuestFactory<'a>,
        kvm: &Arc<Kvm>,
    ) -> Result<(Vec<ReadyGuest>, Lives<'a>), RunError> {
        let guests = factory.create(kvm, &self.end)?;
        let lives = Lives::new(factory, Arc::clone(kvm), self.end.clone(), &guests)?;
        Ok((guests, lives))
    }

    /// Takes apart what is left of the guests, and prints the rest of their output. What was not printed is in
    /// `summary` then. Another one of `signals` ends that.
    pub(crate) fn finish(
        self,
        summary: &mut RunSummary,
        consoles: Vec<ConsoleLeft>,
        signals: Option<&StopSignals>,
    ) {
        // The last lines of a guest are printed when it is taken apart.
        drop(self.reaper);
        self.console.finish(signals);
        for (guest, console) in summary.guests.iter_mut().zip(consoles) {
            guest.console_dropped = console.dropped();
        }
    }
}
