//! Multiplexes all connections of a guest over its queues, and accepts new ones from both sides.
//!
//! Each event of a socket is reported once. What it means is kept in the connection until something can be
//! done about it.
//!
//! Everything here has a bound. Beyond that a request of the guest is refused by a reset, and a request of a
//! program of the host by closing its socket.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::bounds::VsockBounds;
use super::connection::Connection;
use super::connections::Connections;
use super::credit::BUFFER;
use super::listener::VsockListener;
use super::packet::{ANY_PORT, ConnectionKey, HOST_CID, PacketHeader, STREAM, op};
use super::pending::{HostRequest, PendingConnections};
use super::poller::{SocketPoller, Watched};
use super::resets::Resets;

/// Most programs that are accepted at a time.
const ACCEPT_BATCH: usize = 64;

/// The connections of one guest.
#[derive(Debug)]
pub(super) struct VsockMuxer {
    cid: u64,
    poller: SocketPoller,
    listener: VsockListener,
    /// Whether programs of the host wait to be accepted, as far as is known.
    acceptable: bool,
    pending: PendingConnections,
    connections: Connections,
    resets: Resets,
    /// Whether the guest's driver has started the device.
    online: bool,
}

impl VsockMuxer {
    pub(super) fn new(cid: u32, bounds: VsockBounds, listener: VsockListener) -> io::Result<Self> {
        let poller = SocketPoller::new()?;
        poller.add(listener.as_raw_fd(), Watched::Listener)?;
        Ok(Self {
            cid: cid.into(),
            poller,
            listener,
            acceptable: false,
            pending: PendingConnections::new(bounds.pending),
            connections: Connections::new(bounds.connections),
            resets: Resets::default(),
            online: false,
        })
    }

    /// A file that is readable when a socket of the host has an event.
    pub(super) fn event(&self) -> RawFd {
        self.poller.as_raw_fd()
    }

    /// The driver has reset the device or started it, so that it has no connections. `online`: it has started
    /// the device.
    pub(super) fn restart(&mut self, online: bool) {
        self.online = online;
        self.connections.clear();
        self.resets.clear();
    }

    // The host's side.

    /// Handles all events of the host's sockets.
    pub(super) fn on_ready(&mut self) {
        let (connections, acceptable) = (&mut self.connections, &mut self.acceptable);
        self.poller.for_each_event(|watched, ready| match watched {
            Watched::Listener => *acceptable = true,
            Watched::Pending => {}
            Watched::Connection(key) => {
                if let Some(connection) = connections.get_mut(key) {
                    connection.on_socket_ready(ready);
                }
            }
        });
        self.accept_programs();
        self.handle_requests();
        for key in self.connections.keys() {
            self.advance(key);
        }
    }

    /// Accepts programs that still wait, for instance because there were too many open files.
    pub(super) fn accept_remaining(&mut self) {
        if self.acceptable {
            self.accept_programs();
            self.handle_requests();
        }
    }

    fn accept_programs(&mut self) {
        if !self.acceptable {
            return;
        }
        for _ in 0..ACCEPT_BATCH {
            match self.listener.accept() {
                Ok(stream) => self.add_pending(stream),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.acceptable = false;
                        return;
                    }
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Too many open files. The next attempt follows when one of the guest's has been closed.
                    _ => return,
                },
            }
        }
        // More programs may wait, which is reported again by this. Does not fail for a file that is watched.
        let listener = self.listener.as_raw_fd();
        let _ = self.poller.rewatch(listener, Watched::Listener);
    }

    fn add_pending(&mut self, stream: UnixStream) {
        let added = self.poller.add(stream.as_raw_fd(), Watched::Pending);
        if added.is_ok()
            && let Some(request) = self.pending.add(stream)
        {
            self.request_connection(request);
        }
    }

    fn handle_requests(&mut self) {
        for request in self.pending.take_requests() {
            self.request_connection(request);
        }
    }

    /// Requests a connection from the guest on behalf of a program of the host. If no further connection is
    /// possible, the program's socket is closed.
    fn request_connection(&mut self, request: HostRequest) {
        if !self.online || self.connections.is_full() {
            return;
        }
        let HostRequest { stream, guest_port } = request;
        let key = self.connections.unused_key(guest_port);
        let watched = Watched::Connection(key);
        if self.poller.rewatch(stream.as_raw_fd(), watched).is_ok() {
            let connection = Connection::requested_by_host(stream);
            self.connections.insert(key, connection);
            self.advance(key);
        }
    }

    // The guest's side.

    /// Handles a packet of the guest. `data` is `None` if the packet has less data than its header states, or if
    /// that is more than fits.
    pub(super) fn handle_packet(&mut self, header: &PacketHeader, data: Option<&[u8]>) {
        if header.src_cid != self.cid {
            return;
        }
        let key = header.key_from_guest();
        let for_host =
            header.dst_cid == HOST_CID && header.kind == STREAM && key.host_port != ANY_PORT;
        let known = for_host && self.is_open_for_guest(key);
        if known && header.op == op::RESET {
            return self.connections.remove(key);
        }
        let accepted = match header.op {
            // A reset is never answered by a reset. Otherwise there would be no end of them.
            op::RESET => return,
            _ if known => self.deliver(header, data, key),
            op::REQUEST => for_host && self.accept_guest(header, key),
            _ => false,
        };
        if accepted {
            return self.advance(key);
        }
        if known {
            self.connections.remove(key);
        }
        self.resets.push_answer(header);
    }

    /// Whether there is a connection `key` that the guest has not closed.
    fn is_open_for_guest(&mut self, key: ConnectionKey) -> bool {
        self.connections
            .get_mut(key)
            .is_some_and(|connection| !connection.is_closing())
    }

    /// Passes a packet on to its connection. Returns whether the packet keeps the protocol.
    fn deliver(&mut self, header: &PacketHeader, data: Option<&[u8]>, key: ConnectionKey) -> bool {
        match (self.connections.get_mut(key), data) {
            (Some(connection), Some(data)) => connection
                .handle_packet(header, data, key.host_port)
                .is_ok(),
            _ => false,
        }
    }

    /// Connects the guest to the program of the host that listens at the port, if there is one.
    fn accept_guest(&mut self, request: &PacketHeader, key: ConnectionKey) -> bool {
        if self.connections.is_full() || self.connections.contains(key) {
            return false;
        }
        let Ok(stream) = self.listener.connect_to_host(key.host_port) else {
            return false;
        };
        let watched = Watched::Connection(key);
        let added = self.poller.add(stream.as_raw_fd(), watched).is_ok();
        if added {
            let connection = Connection::requested_by_guest(stream, request);
            self.connections.insert(key, connection);
        }
        added
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn may_have_packet(&self) -> bool {
        !self.resets.is_empty() || self.connections.has_ready()
    }

    /// The next packet for the guest, with its data in `buffer`.
    pub(super) fn next_packet(&mut self, buffer: &mut [u8]) -> Option<PacketHeader> {
        if let Some(reset) = self.resets.pop(self.cid) {
            return Some(reset);
        }
        while let Some(key) = self.connections.pop_ready() {
            let packet = self.next_packet_of(key, buffer);
            self.connections.enqueue(key);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    fn next_packet_of(&mut self, key: ConnectionKey, buffer: &mut [u8]) -> Option<PacketHeader> {
        let connection = self.connections.get_mut(key)?;
        let packet = connection.next_packet(buffer)?;
        Some(PacketHeader {
            len: packet.len as u32,
            op: packet.op,
            flags: packet.shutdown.bits(),
            buf_alloc: BUFFER,
            fwd_cnt: connection.report_credit(),
            ..PacketHeader::to_guest(self.cid, key)
        })
    }

    /// The guest did not get this packet. Its connection ends, because a stream must not have a gap.
    pub(super) fn on_lost_packet(&mut self, packet: &PacketHeader) {
        let key = packet.key_to_guest();
        if self.connections.contains(key) {
            self.connections.remove(key);
            self.resets.push(key);
        }
    }

    // Both sides.

    /// Does what can be done for a connection after an event of either side.
    fn advance(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.is_abandoned() {
            let unannounced = connection.is_unannounced();
            self.connections.remove(key);
            if !unannounced {
                self.resets.push(key);
            }
            return;
        }
        connection.flush();
        let guest_closes = connection.take_guest_close();
        if connection.is_closed() {
            self.connections.remove(key);
        } else {
            if let Some(watch) = connection.take_watch_change() {
                self.poller.watch_for_room(connection.fd(), key, watch);
            }
            self.connections.enqueue(key);
        }
        if guest_closes {
            // The guest waits for this reset, and need not wait until the host's program has read everything.
            self.resets.push(key);
        }
    }

    /// Fails if a bound does not hold.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        self.connections.assert_bounds();
        self.pending.assert_bounds();
        self.resets.assert_bounds();
    }
}
