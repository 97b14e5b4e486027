//! All connections of a guest, those that want to become one, and who has something for the guest.
//!
//! The sockets are watched by an epoll of their own, which is readable when any of them has news, so
//! that the device's thread sees one file. It is told of each piece of news once; what it means is
//! kept beside each socket until there is something to be done about it. A socket whose bytes the
//! guest has no room for is therefore not looked at again before there is room, and costs nothing
//! meanwhile.
//!
//! Everything here has a bound, and beyond that the guest's wish is refused by a reset, or the host
//! program's by closing its socket. A reset for which there is no place is left out: a guest that
//! still believes in the connection is told when it uses it the next time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::connection::{BUFFER, Connection};
use super::listener::{Listener, Newcomer, Said};
use super::packet::{HOST, Header, STREAM, op};

/// Most connections, if there are files for them.
pub(super) const MOST_CONNECTIONS: usize = 256;
/// Most programs that have not said which port they want, if there are files for them.
pub(super) const MOST_NEWCOMERS: usize = 64;
/// Most resets that wait for room in the guest's queue.
pub(super) const MOST_RESETS: usize = 256;
/// Most programs to be let in at a stretch.
const STRETCH: usize = 64;
/// The first of the ports that programs of the host get: as many follow.
const FIRST_PORT: u32 = 1 << 30;
/// The number that stands for any port, so that none has it.
const NO_PORT: u32 = u32::MAX;

/// How many sockets of the host's a guest may have at a time; each is an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections.
    pub connections: usize,
    /// Most programs that have not said which port they want; beyond, the one that waits longest
    /// goes.
    pub newcomers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: MOST_CONNECTIONS,
            newcomers: MOST_NEWCOMERS,
        }
    }
}

impl Bounds {
    /// At most `sockets` in all: one in five for newcomers, and never more than the default.
    #[must_use]
    pub fn of_sockets(sockets: u64) -> Self {
        let most = Self::default();
        let sockets = usize::try_from(sockets).unwrap_or(usize::MAX);
        let newcomers = (sockets / 5).clamp(1, most.newcomers);
        Self {
            connections: sockets.saturating_sub(newcomers).clamp(1, most.connections),
            newcomers,
        }
    }

    /// Both together.
    #[must_use]
    pub fn sockets(self) -> u64 {
        (self.connections + self.newcomers) as u64
    }
}

/// Names a connection: the two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ports {
    host: u32,
    guest: u32,
}

/// Whose socket it is, as the epoll keeps it for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Listener,
    /// Of any of them: there are few, and all are looked at.
    Newcomer,
    Connection(Ports),
}

impl Whose {
    fn number(self) -> u64 {
        let (high, low) = match self {
            Self::Listener => (NO_PORT, NO_PORT),
            Self::Newcomer => (NO_PORT, 0),
            Self::Connection(ports) => (ports.host, ports.guest),
        };
        u64::from(high) << 32 | u64::from(low)
    }

    fn of(number: u64) -> Self {
        match ((number >> 32) as u32, number as u32) {
            (NO_PORT, NO_PORT) => Self::Listener,
            (NO_PORT, _) => Self::Newcomer,
            (host, guest) => Self::Connection(Ports { host, guest }),
        }
    }
}

/// A reset for the guest that belongs to no connection.
#[derive(Debug)]
struct Reset {
    src_cid: u64,
    kind: u16,
    ports: Ports,
}

/// The connections of one guest.
#[derive(Debug)]
pub(super) struct Exchange {
    cid: u64,
    bounds: Bounds,
    epoll: Epoll,
    listener: Listener,
    /// Programs wait there, as far as we know.
    waiting: bool,
    /// Who waits longest is first.
    newcomers: VecDeque<Newcomer>,
    connections: BTreeMap<Ports, Connection>,
    /// How far the next port is from the first.
    next_port: u32,
    /// Connections that may have something for the guest, each once.
    line: VecDeque<Ports>,
    resets: VecDeque<Reset>,
    /// The guest has a driver.
    online: bool,
}

impl Exchange {
    pub(super) fn new(cid: u32, bounds: Bounds, listener: Listener) -> io::Result<Self> {
        let exchange = Self {
            cid: cid.into(),
            bounds,
            epoll: Epoll::new()?,
            listener,
            waiting: false,
            newcomers: VecDeque::new(),
            connections: BTreeMap::new(),
            next_port: 0,
            line: VecDeque::new(),
            resets: VecDeque::new(),
            online: false,
        };
        exchange.watch(
            ControlOperation::Add,
            exchange.listener.as_raw_fd(),
            Whose::Listener,
        )?;
        Ok(exchange)
    }

    /// What is readable when there is news from the host.
    pub(super) fn source(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn watch(&self, how: ControlOperation, fd: RawFd, whose: Whose) -> io::Result<()> {
        let news = match whose {
            Whose::Listener | Whose::Newcomer => EventSet::IN,
            Whose::Connection(_) => EventSet::IN | EventSet::READ_HANG_UP,
        };
        self.watch_for(how, fd, whose, news)
    }

    fn watch_for(
        &self,
        how: ControlOperation,
        fd: RawFd,
        whose: Whose,
        news: EventSet,
    ) -> io::Result<()> {
        let event = EpollEvent::new(news | EventSet::EDGE_TRIGGERED, whose.number());
        self.epoll.ctl(how, fd, event)
    }

    /// The driver knows of no connection any more. `online`: there is one.
    pub(super) fn restart(&mut self, online: bool) {
        self.online = online;
        self.connections.clear();
        self.line.clear();
        self.resets.clear();
    }

    // The host's side.

    /// Hears all news from the host, and does what can be done about it.
    pub(super) fn arrived(&mut self) {
        let mut events = [EpollEvent::default(); 64];
        // Ends, for nothing is taken from a socket here: when all are full there is no more news.
        loop {
            match self.epoll.wait(0, &mut events) {
                Ok(0) => break,
                Ok(count) => events[..count].iter().for_each(|event| self.note(event)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.settle();
    }

    fn note(&mut self, event: &EpollEvent) {
        let has = |what: EventSet| event.events() & what.bits() != 0;
        match Whose::of(event.data()) {
            Whose::Listener => self.waiting = true,
            Whose::Newcomer => {}
            Whose::Connection(ports) => {
                if let Some(connection) = self.connections.get_mut(&ports) {
                    connection.stirred(
                        has(EventSet::IN | EventSet::READ_HANG_UP),
                        has(EventSet::OUT),
                        has(EventSet::HANG_UP | EventSet::ERROR),
                    );
                }
            }
        }
    }

    fn settle(&mut self) {
        self.let_in();
        self.hear_newcomers();
        let all: Vec<Ports> = self.connections.keys().copied().collect();
        for ports in all {
            self.tend(ports);
        }
    }

    /// Lets in those who wait; it may be that some could not be for want of files.
    pub(super) fn let_in_rest(&mut self) {
        if self.waiting {
            self.let_in();
            self.hear_newcomers();
        }
    }

    fn let_in(&mut self) {
        if !self.waiting {
            return;
        }
        for _ in 0..STRETCH {
            match self.listener.accept() {
                Ok(stream) => self.welcome(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting = false;
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                // Too many open files: when one of ours has been closed there is another try.
                Err(_) => return,
            }
        }
        // Watched anew it is news again. Fails for no file that is watched.
        let listener = self.listener.as_raw_fd();
        let _ = self.watch(ControlOperation::Modify, listener, Whose::Listener);
    }

    fn welcome(&mut self, stream: UnixStream) {
        if self
            .watch(ControlOperation::Add, stream.as_raw_fd(), Whose::Newcomer)
            .is_err()
        {
            return;
        }
        if self.newcomers.len() >= self.bounds.newcomers {
            self.newcomers.pop_front();
        }
        self.newcomers.push_back(Newcomer::new(stream));
        // Most have said it by now, and then do not stand in the way of others.
        self.hear(self.newcomers.len() - 1);
    }

    fn hear_newcomers(&mut self) {
        for index in (0..self.newcomers.len()).rev() {
            self.hear(index);
        }
    }

    fn hear(&mut self, index: usize) {
        let Some(newcomer) = self.newcomers.get_mut(index) else {
            return;
        };
        let said = newcomer.listen();
        if matches!(said, Said::Nothing) {
            return;
        }
        if let (Some(newcomer), Said::Connect(port)) = (self.newcomers.remove(index), said) {
            self.ask(newcomer.into_stream(), port);
        }
    }

    /// Asks the guest for a connection to its port; without a place for one the program's is closed.
    fn ask(&mut self, stream: UnixStream, guest: u32) {
        if !self.online || self.connections.len() >= self.bounds.connections {
            return;
        }
        let ports = self.free_ports(guest);
        let whose = Whose::Connection(ports);
        if self
            .watch(ControlOperation::Modify, stream.as_raw_fd(), whose)
            .is_ok()
        {
            self.connections
                .insert(ports, Connection::asked_by_host(stream));
            self.tend(ports);
        }
    }

    /// A port of the host's that has no connection to that of the guest's.
    fn free_ports(&mut self, guest: u32) -> Ports {
        loop {
            let host = FIRST_PORT + self.next_port;
            self.next_port = (self.next_port + 1) % FIRST_PORT;
            let ports = Ports { host, guest };
            // There are more ports than connections.
            if !self.connections.contains_key(&ports) {
                return ports;
            }
        }
    }

    // The guest's side.

    /// Takes a packet of the guest's; `data` is `None` if there is less of it, or more, than there
    /// may be.
    pub(super) fn take_packet(&mut self, header: &Header, data: Option<&[u8]>) {
        if header.src_cid != self.cid {
            return;
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        let ours = header.dst_cid == HOST && header.kind == STREAM && ports.host != NO_PORT;
        let known = match self.connections.get_mut(&ports) {
            Some(connection) if ours && !connection.is_leaving() => Some(connection),
            _ => None,
        };
        let fine = match (known, header.op) {
            (Some(_), op::RESET) => {
                self.remove(ports);
                return;
            }
            // Never a reset for a reset, or there would be no end of them.
            (None, op::RESET) => return,
            (Some(connection), _) => {
                let took = data.map(|data| connection.take(header, data, ports.host));
                let fine = matches!(took, Some(Ok(())));
                if !fine {
                    self.remove(ports);
                }
                fine
            }
            (None, op::REQUEST) => ours && self.admit(header, ports),
            (None, _) => false,
        };
        match fine {
            true => self.tend(ports),
            false => self.owe(Reset {
                src_cid: header.dst_cid,
                kind: header.kind,
                ports,
            }),
        }
    }

    /// Connects the guest to the program that listens for it, if there is one.
    fn admit(&mut self, request: &Header, ports: Ports) -> bool {
        if self.connections.len() >= self.bounds.connections
            || self.connections.contains_key(&ports)
        {
            return false;
        }
        let Ok(stream) = self.listener.reach(ports.host) else {
            return false;
        };
        let whose = Whose::Connection(ports);
        let watched = self.watch(ControlOperation::Add, stream.as_raw_fd(), whose);
        if watched.is_ok() {
            let connection = Connection::asked_by_guest(stream, request);
            self.connections.insert(ports, connection);
        }
        watched.is_ok()
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn has_news(&self) -> bool {
        !(self.resets.is_empty() && self.line.is_empty())
    }

    /// The next packet for the guest, with its data in `buffer`.
    pub(super) fn next_packet(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(Header {
                src_cid: reset.src_cid,
                kind: reset.kind,
                op: op::RESET,
                ..self.header(reset.ports)
            });
        }
        while let Some(ports) = self.line.pop_front() {
            let header = self.header(ports);
            let Some(connection) = self.connections.get_mut(&ports) else {
                continue;
            };
            connection.queued = false;
            let packet = connection.next(buffer);
            let fwd_cnt = packet.map(|_| connection.tell());
            self.enqueue(ports);
            if let (Some(packet), Some(fwd_cnt)) = (packet, fwd_cnt) {
                return Some(Header {
                    len: packet.len as u32,
                    op: packet.op,
                    flags: packet.flags,
                    buf_alloc: BUFFER,
                    fwd_cnt,
                    ..header
                });
            }
        }
        None
    }

    /// This packet for the guest did not reach it: a stream with a gap is none.
    pub(super) fn lost(&mut self, packet: &Header) {
        let ports = Ports {
            host: packet.src_port,
            guest: packet.dst_port,
        };
        if self.connections.contains_key(&ports) {
            self.remove(ports);
            self.owe_reset(ports);
        }
    }

    fn header(&self, ports: Ports) -> Header {
        Header {
            src_cid: HOST,
            dst_cid: self.cid,
            src_port: ports.host,
            dst_port: ports.guest,
            kind: STREAM,
            ..Header::default()
        }
    }

    // Both.

    /// Does what can be done for a connection after something has happened to it.
    fn tend(&mut self, ports: Ports) {
        let Some(connection) = self.connections.get_mut(&ports) else {
            return;
        };
        if connection.given_up() {
            let unheard_of = connection.unheard_of();
            self.remove(ports);
            if !unheard_of {
                self.owe_reset(ports);
            }
            return;
        }
        connection.flush();
        let left = connection.guest_has_left();
        let over = connection.is_over();
        let change = connection.watch_for_room();
        let fd = connection.fd();
        if over {
            self.remove(ports);
        } else {
            if let Some(wanted) = change {
                self.watch_for_room(fd, ports, wanted);
            }
            self.enqueue(ports);
        }
        if left {
            // It waits for this, and the host's program need not have read all before.
            self.owe_reset(ports);
        }
    }

    /// Hears of room in a Unix socket that had none, at once if there is some by now.
    fn watch_for_room(&self, fd: RawFd, ports: Ports, wanted: bool) {
        let mut news = EventSet::IN | EventSet::READ_HANG_UP;
        news.set(EventSet::OUT, wanted);
        // Fails for no file that is watched.
        let whose = Whose::Connection(ports);
        let _ = self.watch_for(ControlOperation::Modify, fd, whose, news);
    }

    fn enqueue(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports)
            && !connection.queued
            && connection.has_news()
        {
            connection.queued = true;
            self.line.push_back(ports);
        }
    }

    fn remove(&mut self, ports: Ports) {
        if self
            .connections
            .remove(&ports)
            .is_some_and(|gone| gone.queued)
        {
            self.line.retain(|other| *other != ports);
        }
    }

    fn owe_reset(&mut self, ports: Ports) {
        self.owe(Reset {
            src_cid: HOST,
            kind: STREAM,
            ports,
        });
    }

    fn owe(&mut self, reset: Reset) {
        if self.resets.len() < MOST_RESETS {
            self.resets.push_back(reset);
        }
    }

    /// Fails if a bound does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.connections.len() <= self.bounds.connections);
        assert!(self.newcomers.len() <= self.bounds.newcomers);
        assert!(self.resets.len() <= MOST_RESETS);
        // Each stands in the line once, and those who have something do.
        let queued = self.connections.values().filter(|one| one.queued).count();
        assert_eq!(queued, self.line.len());
        for connection in self.connections.values() {
            connection.check();
            assert!(connection.queued || !connection.has_news());
        }
    }
}
