//! `baton run --metrics WHERE`: counters of the running pool, for Prometheus and what speaks like it.
//!
//! | file | idea |
//! |---|---|
//! | `tally.rs` | what is counted from the policy's events, under the pool's lock |
//! | `gauges.rs` | what an executor counts by itself |
//! | `pool_now.rs` | which host CPUs can be used, and what is kept of reservations |
//! | `snapshot.rs` | all of it, copied at one moment |
//! | `families.rs` | what of it is offered |
//! | `text.rs`, `classic.rs` | that as text: OpenMetrics, and the format of before |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub mod classic;
mod families;
pub mod gauges;
pub mod pool_now;
pub mod snapshot;
pub mod tally;
pub mod text;

use crate::http::request::Asked;
use crate::http::{Listener, Page, Waiter};
use baton_config::MetricsTarget;
use baton_os::directory::Directory;
use baton_os::listener::Access;
use snapshot::Snapshot;

/// How often a file is written anew.
const EVERY: Duration = Duration::from_secs(5);

/// Metrics could not be offered.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("cannot offer metrics at {target}: {source}")]
    Listen {
        /// The address.
        target: MetricsTarget,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write metrics to {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread that offers metrics: {0}")]
    Thread(io::Error),
    /// The thread failed.
    #[error("the thread that offered metrics has failed")]
    Failed,
}

/// Where the numbers come from.
pub trait Source: Send + 'static {
    /// Copies them. The pool's lock is held for that, and for nothing else.
    fn snapshot(&self) -> Snapshot;
}

/// Metrics on offer.
#[derive(Debug)]
pub struct Metrics {
    stop: Arc<EventFd>,
    thread: JoinHandle<Result<(), MetricsError>>,
}

impl Metrics {
    /// Offers the numbers of `source` at `target`.
    pub fn start(target: &MetricsTarget, source: impl Source) -> Result<Self, MetricsError> {
        let fail = |source| MetricsError::Listen {
            target: target.clone(),
            source,
        };
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(fail)?);
        let spawn = thread::Builder::new().name("metrics".into());
        let stopped = Arc::clone(&stop);
        let thread = match target {
            MetricsTarget::File(path) => {
                let path = path.clone();
                write(&path, &source)?;
                let waiter = Waiter::new(stopped, None).map_err(fail)?;
                spawn.spawn(move || {
                    while !waiter.stopped(Some(EVERY)) {
                        // A disk that is full now may have room in five seconds.
                        let _ = write(&path, &source);
                    }
                    write(&path, &source)
                })
            }
            MetricsTarget::Tcp(_) | MetricsTarget::Unix(_) => {
                let listener = Listener::bind(target, Access::Umask).map_err(fail)?;
                let waiter = Waiter::new(stopped, Some(&listener)).map_err(fail)?;
                spawn.spawn(move || {
                    while !waiter.stopped(None) {
                        listener.answer(|asked| {
                            (asked.path == "/metrics").then(|| page(asked, &source))
                        });
                    }
                    Ok(())
                })
            }
        };
        Ok(Self {
            stop,
            thread: thread.map_err(MetricsError::Thread)?,
        })
    }

    /// Ends the offer; a file shows the last numbers.
    pub fn finish(self) -> Result<(), MetricsError> {
        // Only a counter at its maximum refuses a write, and one write cannot take it there.
        let _ = self.stop.write(1);
        self.thread.join().unwrap_or(Err(MetricsError::Failed))
    }
}

/// The numbers in the format that was asked for.
fn page(asked: &Asked<'_>, source: &impl Source) -> Page {
    let snapshot = source.snapshot();
    match asked.reads_classic_only() {
        true => Page {
            kind: classic::CONTENT_TYPE,
            text: classic::render(&snapshot),
        },
        false => Page {
            kind: text::CONTENT_TYPE,
            text: text::render(&snapshot),
        },
    }
}

/// Writes the numbers anew, for node_exporter's textfile collector, which reads the classic format only. The directory may be another one than the last time.
fn write(path: &Path, source: &impl Source) -> Result<(), MetricsError> {
    let text = classic::render(&source.snapshot());
    Directory::of(path)
        // Collectors take files by their ending, so they leave the one that is written alone.
        .and_then(|(directory, name)| directory.replace(&name, text.as_bytes()))
        .map_err(|source| MetricsError::File {
            path: path.to_owned(),
            source,
        })
}
