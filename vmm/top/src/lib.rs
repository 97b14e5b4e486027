//! `baton top`: a live view of a running instance, through its control socket.
//!
//! | file | idea |
//! |---|---|
//! | `client.rs` | asking the instance |
//! | `app.rs` | what the keys do, and what is shown of two snapshots |
//! | `columns.rs` | which columns of the table fit, and how wide they are |
//! | `cpus.rs` | the lines about host CPUs |
//! | `view.rs` | drawing it |

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use thiserror::Error;

pub mod app;
pub mod client;
mod columns;
mod cpus;
mod view;

use app::{App, Next};
use baton_observe::control;
use baton_os::signals::StopSignals;

/// Shortest time between two looks: each holds the pool's lock for a moment.
pub const SHORTEST: Duration = Duration::from_millis(20);
/// How often signals are looked for.
const SIGNALS_EVERY: Duration = Duration::from_millis(200);

/// The view cannot be had.
#[derive(Debug, Error)]
pub enum TopError {
    /// Nothing to look at.
    #[error(
        "no running instance of baton offers a control socket in {}: start one with baton run, or \
         name its socket with --socket", listed(.0)
    )]
    None(Vec<PathBuf>),
    /// Not this one.
    #[error(
        "the process {0} offers no control socket in {dirs}: name its socket with --socket",
        dirs = listed(.1)
    )]
    NotThis(u32, Vec<PathBuf>),
    /// Too much to look at.
    #[error("several instances run: name one of {0}, as in baton top {first}", first = .0.split(' ').next().unwrap_or_default())]
    Several(String),
    /// The instance does not answer.
    #[error("cannot ask the instance at {}: {source}", path.display())]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The terminal.
    #[error("cannot use the terminal ({0}): use --once for plain text")]
    Terminal(io::Error),
}

/// `directories` in a sentence.
fn listed(directories: &[PathBuf]) -> String {
    let names = directories.iter().map(|path| path.display().to_string());
    names.collect::<Vec<_>>().join(" or ")
}

/// The socket of instance `pid`, or of the only one.
///
/// # Errors
/// If there is none, or more than one and `pid` does not say which.
pub fn find(pid: Option<u32>) -> Result<PathBuf, TopError> {
    let mut all = control::instances();
    if let Some(pid) = pid {
        all.retain(|(id, _)| *id == pid);
    }
    match &all[..] {
        [] => Err(match pid {
            None => TopError::None(control::directories()),
            Some(pid) => TopError::NotThis(pid, control::directories()),
        }),
        [(_, path)] => Ok(path.clone()),
        several => {
            let ids: Vec<String> = several.iter().map(|(id, _)| id.to_string()).collect();
            Err(TopError::Several(ids.join(" ")))
        }
    }
}

/// One table, over `interval`, as plain text.
///
/// # Errors
/// If the instance does not answer.
pub fn once(path: PathBuf, interval: Duration) -> Result<String, TopError> {
    let ask = |source| TopError::Ask {
        path: path.clone(),
        source,
    };
    let mut app = App::new(client::snapshot(&path).map_err(ask)?);
    std::thread::sleep(interval);
    app.update(client::snapshot(&path).map_err(ask)?);
    Ok(view::plain(&app))
}

/// The live view, until the user quits, a signal comes or the run has ended. Gives a sentence for
/// the user.
///
/// # Errors
/// If the instance does not answer at the start, or there is no terminal.
pub fn live(
    path: PathBuf,
    interval: Duration,
    signals: &StopSignals,
) -> Result<&'static str, TopError> {
    let first = client::snapshot(&path).map_err(|source| TopError::Ask {
        path: path.clone(),
        source,
    })?;
    let mut app = App::new(first);
    // Restores the terminal in a panic too.
    let mut terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        TopError::Terminal(error)
    })?;
    let end = run(&mut terminal, &mut app, &path, interval, signals);
    ratatui::restore();
    end.map_err(TopError::Terminal)
}

fn run(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    path: &std::path::Path,
    interval: Duration,
    signals: &StopSignals,
) -> io::Result<&'static str> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| view::draw(frame, app))?;
        if signals.take() {
            return Ok("");
        }
        let left = next.saturating_duration_since(Instant::now());
        if event::poll(left.min(SIGNALS_EVERY))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && app.press(key) == Next::Quit
        {
            return Ok("");
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            match client::snapshot(path) {
                Ok(snapshot) => app.update(snapshot),
                // Its socket goes with it. Anything else may be better the next time.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Ok("the run has ended");
                }
                Err(_) => {}
            }
        }
    }
}
