//! The live view: terminal, keys and signals.

use std::io::{self, ErrorKind, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton_os::signals::{self, StopSignals};
use crossterm::event::{self, Event, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};

use super::app::{AfterKey, App};
use super::error::TopError;
use super::{client, view};

/// Shortest time between two snapshots, each of which holds the pool's lock for a moment.
pub const SHORTEST: Duration = Duration::from_millis(20);
/// How often signals are checked.
const SIGNALS_EVERY: Duration = Duration::from_millis(200);

/// The live view, until the user quits, a signal comes or the run has ended. Returns a sentence for the user.
///
/// # Errors
/// If the instance does not answer at the start, or there is no terminal.
pub fn live(
    path: PathBuf,
    interval: Duration,
    signals: &StopSignals,
) -> Result<&'static str, TopError> {
    let first = client::snapshot(&path).map_err(TopError::ask(&path))?;
    // This restores the terminal after a panic, too.
    let terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        TopError::Terminal(error)
    })?;
    let mut view = Live {
        terminal,
        app: App::new(first),
        path,
        interval,
        signals,
    };
    let end = view.run();
    ratatui::restore();
    end.map_err(TopError::Terminal)
}

struct Live<'a> {
    terminal: DefaultTerminal,
    app: App,
    path: PathBuf,
    interval: Duration,
    signals: &'a StopSignals,
}

impl Live<'_> {
    fn run(&mut self) -> io::Result<&'static str> {
        let mut next = Instant::now() + self.interval;
        loop {
            if self.signals.take_continued() {
                self.take_terminal()?;
            }
            let app = &self.app;
            self.terminal.draw(|frame| view::draw(frame, app))?;
            if self.signals.take() {
                return Ok("");
            }
            let left = next.saturating_duration_since(Instant::now());
            match self.await_key(left.min(SIGNALS_EVERY))? {
                AfterKey::Stay => {}
                AfterKey::Suspend => self.suspend()?,
                AfterKey::Quit => return Ok(""),
            }
            if Instant::now() >= next {
                next = Instant::now() + self.interval;
                if !update(&mut self.app, &self.path) {
                    return Ok("the run has ended");
                }
            }
        }
    }

    /// Handles a key, if one is pressed within `timeout`.
    fn await_key(&mut self, timeout: Duration) -> io::Result<AfterKey> {
        if event::poll(timeout)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            return Ok(self.app.press(key));
        }
        Ok(AfterKey::Stay)
    }

    /// Stops this process with the terminal as it was, until the user continues it.
    fn suspend(&mut self) -> io::Result<()> {
        ratatui::restore();
        signals::suspend();
        self.take_terminal()
    }

    /// Takes the terminal for the view again, after the process was stopped. A shell may have set modes of its own
    /// and written on the screen, so all of it is drawn anew.
    fn take_terminal(&mut self) -> io::Result<()> {
        // Raw mode that is on already would not be set again.
        disable_raw_mode()?;
        enable_raw_mode()?;
        // Of a screen that is the alternate one already, a terminal would keep what is on it.
        execute!(
            stdout(),
            LeaveAlternateScreen,
            EnterAlternateScreen,
            Clear(ClearType::All)
        )?;
        // One that has drawn nothing yet. Clearing the old one would ask the terminal for its cursor's position.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

/// Shows the next snapshot. `false` if the run has ended.
fn update(app: &mut App, path: &Path) -> bool {
    match client::snapshot(path) {
        Ok(snapshot) => app.update(snapshot),
        // The socket is removed at the end of the run. Any other error may be gone the next time.
        Err(error) => {
            return !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            );
        }
    }
    true
}
