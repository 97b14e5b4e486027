//! Accepting connections, also when no file is left for one. What else the thread of the link does never waits for that.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use baton_os::listener::OwnListener;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use vcpu_sched::Ns;

/// Pause where no connection can be accepted, nor closed, ns.
const REST_NS: Ns = 100_000_000;

/// The socket at which processes connect, and a file that makes room for one connection.
pub(super) struct Acceptor {
    listener: OwnListener,
    spare: Option<File>,
    /// When connections are accepted again, ns, if they are not.
    rests_until: Option<Ns>,
}

/// What was found at the socket.
pub(super) enum Accepted {
    /// A connection.
    Connection(UnixStream),
    /// A connection that could not be kept was closed.
    Closed(io::Error),
    /// No connection waits, or none can be accepted for a moment.
    None,
}

impl Acceptor {
    /// Accepts connections of `listener`, which `epoll` reports with `data` from now on.
    ///
    /// # Errors
    /// If this process has no file left.
    pub(super) fn new(listener: OwnListener, epoll: &OwnedFd, data: u64) -> io::Result<Self> {
        let this = Self {
            listener,
            spare: Some(spare()?),
            rests_until: None,
        };
        this.watch(epoll, data)?;
        Ok(this)
    }

    fn watch(&self, epoll: &OwnedFd, data: u64) -> io::Result<()> {
        let data = EventData::new_u64(data);
        epoll::add(epoll, &self.listener, data, EventFlags::IN)?;
        Ok(())
    }

    /// Accepts the next connection at the time `now`, ns. Where no file is left, the one that waits is closed, so that
    /// its process learns that and may try again.
    pub(super) fn accept(&mut self, epoll: &OwnedFd, now: Ns) -> Accepted {
        let error = match self.listener.accept() {
            Ok(stream) => return Accepted::Connection(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::None,
            Err(error) => error,
        };
        let no_file_left = matches!(
            Errno::from_io_error(&error),
            Some(Errno::MFILE | Errno::NFILE)
        );
        if no_file_left && self.spare.take().is_some() {
            let closed = self.listener.accept().map(drop);
            self.spare = spare().ok();
            if closed.is_ok() {
                return Accepted::Closed(error);
            }
        }
        // The connection stays in the queue, and trying again at once would burn a CPU.
        tracing::warn!(%error, "a guest's process cannot connect");
        let _ = epoll::delete(epoll, &self.listener);
        self.rests_until = Some(now.saturating_add(REST_NS));
        Accepted::None
    }

    /// When connections are accepted again, ns, if they are not.
    pub(super) fn rests_until(&self) -> Option<Ns> {
        self.rests_until
    }

    /// Goes on after a rest if that is over at the time `now`, ns. `epoll` reports connections with `data` then.
    pub(super) fn go_on(&mut self, epoll: &OwnedFd, data: u64, now: Ns) {
        if self.rests_until.is_some_and(|until| until <= now) {
            self.spare = self.spare.take().or_else(|| spare().ok());
            let rests = self.watch(epoll, data).is_err();
            self.rests_until = rests.then(|| now.saturating_add(REST_NS));
        }
    }
}

/// A file that can always be opened.
fn spare() -> io::Result<File> {
    File::open("/dev/null")
}
