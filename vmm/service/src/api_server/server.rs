//! The socket of the API, and the thread that serves it. The thread never waits for the pool.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use baton_os::listener::{Access, ListenError, OwnListener};
use baton_os::peer::Peer;
use baton_os::sys;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::answers::Shared;
use super::limits::{Connections, LONGEST, MAX_HEAD, MAX_HEADERS, PATIENCE, Place};
use super::routes::{Caller, routes};
use super::work_places::MAX_WORK;
use crate::service::Service;

/// Pause where no connection can be accepted.
const REST: Duration = Duration::from_millis(100);
/// How long the end waits for requests that are being answered.
const END: Duration = Duration::from_millis(500);

/// The API cannot be offered.
#[derive(Debug, Error)]
#[error("cannot offer the API at {}: {source}", path.display())]
pub struct ApiServerError {
    /// The socket.
    pub path: PathBuf,
    /// The host's reason.
    pub source: io::Error,
}

/// The API on offer. Dropping it ends the offer.
#[derive(Debug)]
pub struct ApiServer {
    stop: Arc<Notify>,
    /// Set by the thread each time that it is asked.
    answers: Arc<AtomicBool>,
    ask: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Offers the API of `service` at `path`. The threads use the host CPUs `cpus`.
    ///
    /// # Errors
    /// If another pool listens there, or the host refuses.
    pub fn start(
        path: &Path,
        service: &Arc<Service>,
        cpus: &[usize],
    ) -> Result<Self, ApiServerError> {
        let failed = |source| ApiServerError {
            path: path.to_owned(),
            source,
        };
        let listener = OwnListener::bind(path, Access::Everybody).map_err(|error| match error {
            ListenError::InUse => failed(io::Error::other(
                "another pool listens there; give another --dir",
            )),
            error => failed(error.into()),
        })?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_WORK)
            .thread_name("api-work")
            .build()
            .map_err(failed)?;
        let (stop, ask) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let answers = Arc::new(AtomicBool::new(true));
        let router = routes(Shared::new(Arc::clone(service)));
        let (stopped, asked) = (Arc::clone(&stop), (Arc::clone(&ask), Arc::clone(&answers)));
        let cpus = cpus.to_vec();
        let run = move || {
            // Where it cannot be moved, it works here. The threads for work begin where this one is.
            let _ = sys::set_affinity(&cpus);
            serve(runtime, listener, router, &stopped, asked);
        };
        let thread = thread::Builder::new().name("api".into()).spawn(run);
        Ok(Self {
            stop,
            answers,
            ask,
            thread: Some(thread.map_err(failed)?),
        })
    }

    /// Whether the thread has done something since the last call.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let answered = self.answers.swap(false, Ordering::AcqRel);
        self.ask.notify_one();
        answered
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}

/// The thread: serves until `stop` is notified.
fn serve(
    runtime: Runtime,
    listener: OwnListener,
    router: Router,
    stop: &Notify,
    (ask, answers): (Arc<Notify>, Arc<AtomicBool>),
) {
    runtime.spawn(async move {
        loop {
            ask.notified().await;
            answers.store(true, Ordering::Release);
        }
    });
    let socket = {
        let _context = runtime.enter();
        listener.socket().and_then(UnixListener::from_std)
    };
    match socket {
        Ok(socket) => drop(runtime.spawn(accept(socket, listener, router))),
        Err(error) => tracing::error!(%error, "the API cannot be served"),
    }
    runtime.block_on(stop.notified());
    // Work that waits for the pool ends with it.
    runtime.shutdown_timeout(END);
}

/// Accepts connections. The file of the socket is removed with `own`.
async fn accept(listener: UnixListener, own: OwnListener, router: Router) {
    let connections = Connections::default();
    let _own = own;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Some((peer, place)) = admit(&stream, &connections) {
                    tokio::spawn(converse(stream, peer, place, router.clone()));
                }
            }
            Err(error) => {
                // The connection stays in the queue, and trying again at once would burn a CPU.
                tracing::warn!(%error, "a client of the API cannot connect");
                sleep(REST).await;
            }
        }
    }
}

/// The place of a connection, unless its user has too many. Otherwise it is closed.
fn admit(stream: &UnixStream, connections: &Connections) -> Option<(Peer, Place)> {
    let peer = Peer::of(stream).ok()?;
    let place = connections.take(peer.uid)?;
    Some((peer, place))
}

/// Answers one request.
async fn converse(stream: UnixStream, peer: Peer, place: Place, router: Router) {
    let _place = place;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(PATIENCE));
    let follows = Arc::new(AtomicBool::new(false));
    let caller = Caller {
        peer: Arc::new(peer),
        follows: Arc::clone(&follows),
    };
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), answer);
    let mut connection = std::pin::pin!(connection);
    // A client that breaks HTTP or goes away has no answer, and that is all.
    if timeout(LONGEST, &mut connection).await.is_err() && follows.load(Ordering::Acquire) {
        let _ = connection.await;
    }
}
