//! Waiting for a request or for the end.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::server::HttpServer;

/// Waits for requests, and for the end.
#[derive(Debug)]
pub(crate) struct RequestWaiter {
    epoll: Epoll,
    stop: Arc<EventFd>,
}

impl RequestWaiter {
    /// Waits for requests to `server`, if there is one, until `stop` is written.
    pub(crate) fn new(stop: Arc<EventFd>, server: Option<&HttpServer>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let fds = [Some(stop.as_raw_fd()), server.map(AsRawFd::as_raw_fd)];
        for fd in fds.into_iter().flatten() {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        Ok(Self { epoll, stop })
    }

    /// Waits for a request, for `timeout` at most. Whether the end has come.
    pub(crate) fn stopped(&self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
        let mut events = [EpollEvent::default()];
        match self.epoll.wait(timeout, &mut events) {
            Err(error) if error.kind() != ErrorKind::Interrupted => true,
            _ => self.stop.read().is_ok(),
        }
    }
}
