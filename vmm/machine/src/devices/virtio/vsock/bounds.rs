//! How many sockets of the host a guest may have at a time.

/// Most connections, if the process may open so many files.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Most pending connections, if the process may open so many files.
pub(super) const MAX_PENDING: usize = 64;

/// How many sockets of the host a guest may have at a time; each is an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockBounds {
    /// Most connections.
    pub connections: usize,
    /// Most programs that have connected and not yet named a port. One more closes the socket of the program
    /// that has been pending for longest.
    pub pending: usize,
}

impl Default for VsockBounds {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            pending: MAX_PENDING,
        }
    }
}

impl VsockBounds {
    /// Divides at most `sockets` sockets: a fifth is for pending connections. Neither bound exceeds the default,
    /// and neither is 0.
    #[must_use]
    pub fn of_sockets(sockets: u64) -> Self {
        let limit = Self::default();
        let sockets = usize::try_from(sockets).unwrap_or(usize::MAX);
        let pending = (sockets / 5).clamp(1, limit.pending);
        Self {
            connections: sockets.saturating_sub(pending).clamp(1, limit.connections),
            pending,
        }
    }

    /// The sum of both bounds.
    #[must_use]
    pub fn sockets(self) -> u64 {
        (self.connections + self.pending) as u64
    }
}
