//! A process that is connected.

use std::sync::Arc;

use baton_link::connection::Connection;
use baton_link::rate_limit::RateLimit;
use baton_link::wake_file::WakeFile;
use baton_os::peer::Peer;
use vcpu_sched::Ns;

use super::wake_limit::WakeLimit;

/// How long a process may take until it has requested to join, ns.
pub(super) const PATIENCE_NS: Ns = 5_000_000_000;

/// How far a process has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// It has sent nothing.
    Silent,
    /// It speaks the protocol.
    Greeted,
    /// Its guest has joined.
    Joined {
        /// The number of the guest.
        number: u64,
        /// Written when a vCPU has woken; the epoll instance watches it.
        wakes: WakeFile,
        /// How often it may be written for nothing.
        limit: WakeLimit,
    },
}

/// A process that is connected.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Peer,
    /// Whether its user may have no guests.
    pub(super) is_stranger: bool,
    pub(super) phase: Phase,
    pub(super) limit: RateLimit,
    /// When it connected, ns.
    pub(super) since: Ns,
    /// Files that its guest makes the pool open.
    pub(super) files: u64,
}

impl Client {
    pub(super) fn new(connection: Connection, (peer, is_stranger): (Peer, bool), now: Ns) -> Self {
        Self {
            connection: Arc::new(connection),
            peer,
            is_stranger,
            phase: Phase::Silent,
            limit: RateLimit::new(now),
            since: now,
            files: 0,
        }
    }

    /// The number of its guest, if that has joined.
    pub(super) fn guest(&self) -> Option<u64> {
        match self.phase {
            Phase::Joined { number, .. } => Some(number),
            Phase::Silent | Phase::Greeted => None,
        }
    }

    /// When its reports of wakes are read again, ns, if they are not.
    pub(super) fn resumes(&self) -> Option<Ns> {
        match &self.phase {
            Phase::Joined { limit, .. } => limit.paused_until(),
            Phase::Silent | Phase::Greeted => None,
        }
    }

    /// When it is dropped unless its guest has joined, ns.
    pub(super) fn expires(&self) -> Option<Ns> {
        match self.guest() {
            Some(_) => None,
            None => Some(self.since + PATIENCE_NS),
        }
    }
}
