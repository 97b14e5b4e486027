//! The control socket of this run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use baton_config::{Control, MetricsTarget};
use baton_os::listener::Access;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::directories::directories;
use super::runtime_dir::{RuntimeDirError, first_path};
use super::snapshot::PoolSnapshot;
use crate::http::{HttpPage, HttpServer, RequestWaiter};

/// The control socket could not be offered.
#[derive(Debug, Error)]
#[error("cannot offer the control socket {}: {source}; name another with --control, or say --control off", path.display())]
pub struct ControlError {
    /// The socket.
    path: PathBuf,
    /// The error of the host.
    source: io::Error,
}

/// Where the snapshots come from.
pub trait SnapshotSource: Send + 'static {
    /// Copies the state of the pool. The pool's lock is held for the copy and for nothing else.
    fn snapshot(&self) -> PoolSnapshot;
}

/// A control socket on offer. Dropping it ends the offer.
#[derive(Debug)]
pub struct ControlSocket {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl ControlSocket {
    /// Offers the snapshots of `source` where `control` says. `None` if no socket is to be offered, or if no
    /// default directory can be used, which is reported on standard error.
    ///
    /// # Errors
    /// If the path that the user named cannot be used.
    pub fn start(
        control: &Control,
        source: impl SnapshotSource,
    ) -> Result<Option<Self>, ControlError> {
        match control {
            Control::Off => Ok(None),
            Control::Path(path) => match Self::listen(path, source) {
                Ok(socket) => Ok(Some(socket)),
                Err(source) => Err(ControlError {
                    path: path.clone(),
                    source,
                }),
            },
            Control::Default => {
                let socket = first_path(&directories()).and_then(|path| {
                    Self::listen(&path, source)
                        .map_err(|source| RuntimeDirError::Host { path, source })
                });
                Ok(socket.inspect_err(report_no_socket).ok())
            }
        }
    }

    fn listen(path: &Path, source: impl SnapshotSource) -> io::Result<Self> {
        let server = HttpServer::bind(&MetricsTarget::Unix(path.to_owned()), Access::OwnerOnly)?;
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let waiter = RequestWaiter::new(Arc::clone(&stop), Some(&server))?;
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                while !waiter.stopped(None) {
                    server.answer(|request| (request.path == "/snapshot").then(|| page(&source)));
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn page(source: &impl SnapshotSource) -> HttpPage {
    HttpPage {
        content_type: "application/json",
        // Plain data always has a JSON form.
        text: serde_json::to_string(&source.snapshot()).unwrap_or_default() + "\n",
    }
}

fn report_no_socket(error: &RuntimeDirError) {
    baton_os::say!(
        "baton: this run has no control socket, for {error}; name one with --control, or say --control off"
    );
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Only a counter at its maximum refuses a write, and one write cannot take it there.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported on standard error by then.
            let _ = thread.join();
        }
    }
}
