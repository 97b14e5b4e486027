//! Where guests print to.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_config::{ConsoleConfig, GuestConfig, RunConfig, SummaryForm};
use baton_machine::Guest;
use baton_machine::console::{ConsolePort, ConsoleThread, GuestConsole};
use baton_os::signals::StopSignals;

use crate::error::RunError;

/// How long to wait at the end for the reader of the console, where it is not the reader of the summary.
const PATIENCE: Duration = Duration::from_secs(2);

/// The consoles of all guests.
pub(crate) struct ConsoleOutput {
    /// Writes what the guests print that share standard output. `None` if there are none.
    stdio: Option<ConsoleThread>,
    /// The console of each guest, by its number.
    consoles: Vec<GuestConsole>,
    summary: SummaryForm,
}

impl ConsoleOutput {
    /// Sets up the consoles, and prints on standard error where pseudo-terminals are. The console that guests share
    /// is standard output, or standard error if standard output is to be one JSON object.
    pub(crate) fn start(config: &RunConfig) -> Result<Self, RunError> {
        if config.summary == SummaryForm::Json {
            check_apart(&config.guests)?;
        }
        let mut this = Self {
            stdio: stdio(config)?,
            consoles: Vec::with_capacity(config.guests.len()),
            summary: config.summary,
        };
        let sharing = on_stdio(config).count();
        for guest in &config.guests {
            let console = this.open(config, guest, sharing)?;
            if let (ConsoleConfig::Pty, Some(path)) = (&guest.console, console.place()) {
                baton_os::say!(
                    "baton: the console of guest {} is {}",
                    guest.name,
                    path.display()
                );
            }
            this.consoles.push(console);
        }
        Ok(this)
    }

    /// Sets up the console of `guest`, one of `sharing` guests on standard output if it is there.
    fn open(
        &self,
        config: &RunConfig,
        guest: &GuestConfig,
        sharing: usize,
    ) -> Result<GuestConsole, RunError> {
        let stdio = || match &self.stdio {
            Some(thread) if sharing > 1 => thread.port(format!("[{}] ", guest.name)),
            Some(thread) => thread.port(String::new()),
            None => ConsolePort::discard(),
        };
        let place = match config.quiet {
            true => &ConsoleConfig::Off,
            false => &guest.console,
        };
        GuestConsole::open(place, stdio).map_err(|source| RunError::Console {
            guest: guest.name.clone(),
            source,
        })
    }

    /// The port of guest `number`.
    pub(crate) fn port(&self, number: usize) -> ConsolePort {
        let console = self.consoles.get(number);
        console.map_or_else(ConsolePort::discard, GuestConsole::port)
    }

    /// Gives `guest`, whose number is `number`, the input of its console. Standard input is given by
    /// `GuestFactory::start_input`.
    pub(crate) fn connect(&self, number: usize, guest: &Arc<Guest>) -> Result<(), RunError> {
        let Some(console) = self.consoles.get(number) else {
            return Ok(());
        };
        let connected = console.connect(Arc::clone(guest) as _);
        connected.map_err(RunError::host("the input of a console"))
    }

    /// Writes what is left. Another signal ends that.
    pub(crate) fn finish(self, signals: Option<&StopSignals>) {
        self.consoles.iter().for_each(GuestConsole::end);
        drop(self.consoles);
        let Some(thread) = self.stdio else { return };
        // A summary as text follows what guests print, and waits for the same reader.
        let apart = self.summary == SummaryForm::Json;
        let stopped = || signals.is_some_and(StopSignals::take);
        thread.finish(|stuck| stopped() || (apart && stuck >= PATIENCE));
    }
}

/// The numbers of the guests on standard output.
pub(crate) fn on_stdio(config: &RunConfig) -> impl Iterator<Item = usize> {
    let shares = |guest: &GuestConfig| !config.quiet && guest.console == ConsoleConfig::Stdio;
    let guests = config.guests.iter().enumerate();
    guests
        .filter(move |(_, guest)| shares(guest))
        .map(|(number, _)| number)
}

/// The thread that writes what guests on standard output print.
fn stdio(config: &RunConfig) -> Result<Option<ConsoleThread>, RunError> {
    if on_stdio(config).next().is_none() {
        return Ok(None);
    }
    let thread = match config.summary {
        SummaryForm::Text => ConsoleThread::spawn(io::stdout()),
        SummaryForm::Json => ConsoleThread::spawn(io::stderr()),
    };
    thread
        .map(Some)
        .map_err(RunError::host("the console's thread"))
}

/// Refuses a console that is a file under another name of standard output, on which only the summary is to be.
fn check_apart(guests: &[GuestConfig]) -> Result<(), RunError> {
    for guest in guests {
        if let ConsoleConfig::File(path) = &guest.console
            && is_stdout(path)
        {
            return Err(RunError::ConsoleIsStdout {
                guest: guest.name.clone(),
                path: path.clone(),
            });
        }
    }
    Ok(())
}

/// Whether what is written to `path` comes to standard output.
fn is_stdout(path: &Path) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| File::from(stdout).metadata());
    let (Ok(stdout), Ok(file)) = (stdout, fs::metadata(path)) else {
        return false;
    };
    let same = (stdout.dev(), stdout.ino()) == (file.dev(), file.ino());
    let null = || fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == file.rdev());
    same && !(file.file_type().is_char_device() && null())
}
