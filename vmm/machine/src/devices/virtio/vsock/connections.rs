//! All connections of a guest, and which of them have something for it.

use std::collections::{BTreeMap, VecDeque};

use super::connection::Connection;
use super::packet::ConnectionKey;

/// The first of the ports that programs of the host get: as many follow.
const FIRST_PORT: u32 = 1 << 30;

/// The connections of one guest, up to a limit.
///
/// Each connection that may have a packet for the guest is in a queue, once. So a connection for whose bytes
/// the guest has no room is not visited before there is room.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    connections: BTreeMap<ConnectionKey, TrackedConnection>,
    /// The connections that may have a packet for the guest.
    ready: VecDeque<ConnectionKey>,
    /// The next port for a program of the host, relative to the first.
    next_port: u32,
}

#[derive(Debug)]
struct TrackedConnection {
    connection: Connection,
    /// Whether the connection is in `ready`.
    queued: bool,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            connections: BTreeMap::new(),
            ready: VecDeque::new(),
            next_port: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections.len() >= self.limit
    }

    pub(super) fn contains(&self, key: ConnectionKey) -> bool {
        self.connections.contains_key(&key)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections
            .get_mut(&key)
            .map(|tracked| &mut tracked.connection)
    }

    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn insert(&mut self, key: ConnectionKey, connection: Connection) {
        let tracked = TrackedConnection {
            connection,
            queued: false,
        };
        self.connections.insert(key, tracked);
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) {
        let removed = self.connections.remove(&key);
        if removed.is_some_and(|tracked| tracked.queued) {
            self.ready.retain(|other| *other != key);
        }
    }

    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.ready.clear();
    }

    /// A key for a connection of a program of the host to `guest_port`, which no connection has.
    pub(super) fn unused_key(&mut self, guest_port: u32) -> ConnectionKey {
        loop {
            let key = ConnectionKey {
                host_port: FIRST_PORT + self.next_port,
                guest_port,
            };
            self.next_port = (self.next_port + 1) % FIRST_PORT;
            // Ends, because there are more ports than connections.
            if !self.contains(key) {
                return key;
            }
        }
    }

    /// Queues the connection `key` if it may have a packet for the guest.
    pub(super) fn enqueue(&mut self, key: ConnectionKey) {
        if let Some(tracked) = self.connections.get_mut(&key)
            && !tracked.queued
            && tracked.connection.may_have_packet()
        {
            tracked.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Whether a connection may have a packet for the guest.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next connection that may have a packet for the guest out of the queue.
    pub(super) fn pop_ready(&mut self) -> Option<ConnectionKey> {
        let key = self.ready.pop_front()?;
        if let Some(tracked) = self.connections.get_mut(&key) {
            tracked.queued = false;
        }
        Some(key)
    }

    /// Fails if a bound does not hold, or the queue does not fit the connections.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        assert!(self.connections.len() <= self.limit);
        let queued = self.connections.values().filter(|tracked| tracked.queued);
        assert_eq!(queued.count(), self.ready.len());
        for tracked in self.connections.values() {
            tracked.connection.assert_bounds();
            assert!(tracked.queued || !tracked.connection.may_have_packet());
        }
    }
}
