//! How many connections a user may have, and how long each may take. No client keeps others waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most connections of one user.
pub(super) const MAX_OF_USER: usize = 16;
/// Most connections of all users but root.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Longest time until the head of a request has come, or its body, or the client has read some of the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for a whole request, unless it follows the events.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Longest time for what a request does to the pool.
pub(super) const LONGEST_WORK: Duration = Duration::from_secs(30);
/// Longest body of a request, bytes.
pub(super) const MAX_BODY: usize = 16 << 10;
/// Longest head of a request, bytes.
pub(super) const MAX_HEAD: usize = 16 << 10;
/// Most lines in it.
pub(super) const MAX_HEADERS: usize = 64;

/// The connections of each user.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<u32, usize>>>);

/// A place for one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    uid: u32,
}

impl Connections {
    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of user `uid`, if there is one.
    pub(super) fn take(&self, uid: u32) -> Option<Place> {
        let mut counts = self.counts();
        let others: usize = counts
            .iter()
            .filter(|(uid, _)| **uid != 0)
            .map(|(_, n)| n)
            .sum();
        if uid != 0 && others >= MAX_CONNECTIONS {
            return None;
        }
        let own = counts.entry(uid).or_default();
        if *own >= MAX_OF_USER {
            return None;
        }
        *own += 1;
        Some(Place {
            connections: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.counts();
        if let Some(own) = counts.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_connections_and_root_always_has_some() {
        let connections = Connections::default();
        let mut places: Vec<Place> = (0..MAX_OF_USER)
            .filter_map(|_| connections.take(1))
            .collect();
        assert_eq!(places.len(), MAX_OF_USER);
        assert!(connections.take(1).is_none());
        places.pop();
        places.extend(connections.take(1));
        assert_eq!(places.len(), MAX_OF_USER);
        for uid in 2..=100 {
            places.extend(connections.take(uid));
            places.extend(connections.take(uid));
            places.extend(connections.take(uid));
        }
        assert_eq!(places.len(), MAX_CONNECTIONS);
        assert!(connections.take(200).is_none());
        assert!(connections.take(0).is_some());
        drop(places);
        assert!(connections.counts().is_empty());
    }
}
