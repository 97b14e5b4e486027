//! Watches all Unix sockets of one guest by an epoll instance of its own.
//!
//! The epoll instance is readable when any of the sockets has an event, so that the device's thread watches one
//! file. Each event is reported once.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::packet::{ANY_PORT, ConnectionKey};

/// Most events at a time.
const BATCH: usize = 64;

/// Which socket is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The one at which programs of the host connect.
    Listener,
    /// Any of the pending connections: there are few, and each event of one checks all.
    Pending,
    /// The one of this connection.
    Connection(ConnectionKey),
}

impl Watched {
    /// As the epoll instance keeps it. No connection has [`ANY_PORT`] as the host's port.
    fn to_data(self) -> u64 {
        let (high, low) = match self {
            Self::Listener => (ANY_PORT, ANY_PORT),
            Self::Pending => (ANY_PORT, 0),
            Self::Connection(key) => (key.host_port, key.guest_port),
        };
        u64::from(high) << 32 | u64::from(low)
    }

    fn of_data(data: u64) -> Self {
        match ((data >> 32) as u32, data as u32) {
            (ANY_PORT, ANY_PORT) => Self::Listener,
            (ANY_PORT, _) => Self::Pending,
            (host_port, guest_port) => Self::Connection(ConnectionKey {
                host_port,
                guest_port,
            }),
        }
    }

    /// The events of such a socket, room for bytes excepted.
    fn events(self) -> EventSet {
        match self {
            Self::Listener | Self::Pending => EventSet::IN,
            Self::Connection(_) => EventSet::IN | EventSet::READ_HANG_UP,
        }
    }
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// It has bytes, or the other side sends no more.
    pub(super) readable: bool,
    /// It has room.
    pub(super) writable: bool,
    /// The other side has closed it.
    pub(super) hung_up: bool,
}

/// Watches sockets.
#[derive(Debug)]
pub(super) struct SocketPoller(Epoll);

impl SocketPoller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new()?))
    }

    /// Watches a socket from now on.
    pub(super) fn add(&self, fd: RawFd, watched: Watched) -> io::Result<()> {
        self.control(ControlOperation::Add, fd, watched, watched.events())
    }

    /// Watches a socket that is watched already as `watched` from now on. An event that it has now is reported
    /// again.
    pub(super) fn rewatch(&self, fd: RawFd, watched: Watched) -> io::Result<()> {
        self.control(ControlOperation::Modify, fd, watched, watched.events())
    }

    /// Watches the socket of a connection also for room, or no longer. If it has room now, that is reported.
    pub(super) fn watch_for_room(&self, fd: RawFd, key: ConnectionKey, watch: bool) {
        let watched = Watched::Connection(key);
        let mut events = watched.events();
        events.set(EventSet::OUT, watch);
        // Does not fail for a socket that is watched.
        let _ = self.control(ControlOperation::Modify, fd, watched, events);
    }

    fn control(
        &self,
        operation: ControlOperation,
        fd: RawFd,
        watched: Watched,
        events: EventSet,
    ) -> io::Result<()> {
        let event = EpollEvent::new(events | EventSet::EDGE_TRIGGERED, watched.to_data());
        self.0.ctl(operation, fd, event)
    }

    /// Passes all events since the last call to `handle`. `handle` must not read from the sockets, so that the
    /// events end.
    pub(super) fn for_each_event(&self, mut handle: impl FnMut(Watched, Readiness)) {
        let mut events = [EpollEvent::default(); BATCH];
        loop {
            match self.0.wait(0, &mut events) {
                Ok(0) => return,
                Ok(count) => {
                    for event in &events[..count] {
                        handle(Watched::of_data(event.data()), readiness(event));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

fn readiness(event: &EpollEvent) -> Readiness {
    let has = |events: EventSet| event.events() & events.bits() != 0;
    Readiness {
        readable: has(EventSet::IN | EventSet::READ_HANG_UP),
        writable: has(EventSet::OUT),
        hung_up: has(EventSet::HANG_UP | EventSet::ERROR),
    }
}

impl AsRawFd for SocketPoller {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoll_data_of_each_socket_names_that_socket() {
        let key = |host_port, guest_port| {
            Watched::Connection(ConnectionKey {
                host_port,
                guest_port,
            })
        };
        for watched in [
            Watched::Listener,
            Watched::Pending,
            key(0, 0),
            key(0, ANY_PORT),
            key(ANY_PORT - 1, ANY_PORT),
        ] {
            assert_eq!(Watched::of_data(watched.to_data()), watched);
        }
    }
}
