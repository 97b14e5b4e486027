//! Where metrics are offered: in a file that is written anew every few seconds, or by a server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_config::MetricsTarget;
use baton_os::directory::Directory;
use baton_os::listener::Access;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::classic;
use super::exposition::exposition;
use super::snapshot::MetricsSnapshot;
use crate::http::{HttpPage, HttpRequest, HttpServer, RequestWaiter};

/// How often the file is written anew.
const EVERY: Duration = Duration::from_secs(5);

/// Metrics could not be offered.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The server could not listen at its address.
    #[error("cannot offer metrics at {target}: {source}")]
    Listen {
        /// The address.
        target: MetricsTarget,
        /// The error of the host.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write metrics to {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the thread that offers metrics: {0}")]
    Thread(io::Error),
    /// The thread panicked.
    #[error("the thread that offered metrics has failed")]
    Failed,
}

/// Where the numbers come from.
pub trait MetricsSource: Send + 'static {
    /// Copies the numbers. The pool's lock is held for the copy and for nothing else.
    fn snapshot(&self) -> MetricsSnapshot;
}

/// Metrics on offer.
#[derive(Debug)]
pub struct Metrics {
    stop: Arc<EventFd>,
    thread: JoinHandle<Result<(), MetricsError>>,
}

impl Metrics {
    /// Offers the numbers of `source` at `target`.
    ///
    /// # Errors
    /// If the file, the address or the thread cannot be had.
    pub fn start(target: &MetricsTarget, source: impl MetricsSource) -> Result<Self, MetricsError> {
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
                let waiter = RequestWaiter::new(stopped, None).map_err(fail)?;
                spawn.spawn(move || write_until_stopped(&path, &waiter, &source))
            }
            MetricsTarget::Tcp(_) | MetricsTarget::Unix(_) => {
                let server = HttpServer::bind(target, Access::Umask).map_err(fail)?;
                let waiter = RequestWaiter::new(stopped, Some(&server)).map_err(fail)?;
                spawn.spawn(move || {
                    answer_until_stopped(&server, &waiter, &source);
                    Ok(())
                })
            }
        };
        Ok(Self {
            stop,
            thread: thread.map_err(MetricsError::Thread)?,
        })
    }

    /// Ends the offer. A file keeps the last numbers.
    ///
    /// # Errors
    /// If the last numbers could not be written, or the thread panicked.
    pub fn finish(self) -> Result<(), MetricsError> {
        // Only a counter at its maximum refuses a write, and one write cannot take it there.
        let _ = self.stop.write(1);
        self.thread.join().unwrap_or(Err(MetricsError::Failed))
    }
}

fn write_until_stopped(
    path: &Path,
    waiter: &RequestWaiter,
    source: &impl MetricsSource,
) -> Result<(), MetricsError> {
    while !waiter.stopped(Some(EVERY)) {
        // A disk that is full now may have room in five seconds.
        let _ = write(path, source);
    }
    write(path, source)
}

/// Writes the numbers in the classic format, the only one that node_exporter's textfile collector reads. The
/// path may lead to another directory than the last time.
fn write(path: &Path, source: &impl MetricsSource) -> Result<(), MetricsError> {
    let text = classic::render(&source.snapshot());
    Directory::of(path)
        // Collectors choose files by their ending, so they skip the one that is being written.
        .and_then(|(directory, name)| directory.replace(&name, text.as_bytes()))
        .map_err(|source| MetricsError::File {
            path: path.to_owned(),
            source,
        })
}

fn answer_until_stopped(server: &HttpServer, waiter: &RequestWaiter, source: &impl MetricsSource) {
    while !waiter.stopped(None) {
        server.answer(|request| (request.path == "/metrics").then(|| page(request, source)));
    }
}

/// The numbers in the format that the client reads.
fn page(request: &HttpRequest<'_>, source: &impl MetricsSource) -> HttpPage {
    let (content_type, text) = exposition(&source.snapshot(), request.reads_classic_only());
    HttpPage { content_type, text }
}
