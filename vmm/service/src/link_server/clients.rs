//! All processes that are connected, and how many a user may have. One user cannot use up what others need.

use std::collections::HashMap;

use baton_os::peer::Peer;
use vcpu_sched::Ns;

use super::client::Client;

/// Most connections.
const MAX_CLIENTS: usize = 1024;
/// Most connections of one user other than root.
const MAX_OF_USER: usize = 256;
/// Most connections of one user whose guests have not joined.
const MAX_WAITING: usize = 8;
/// Most connections of one user within [`WINDOW_NS`]. Each of them takes time of the link's thread and a line of the log.
const MAX_IN_WINDOW: u32 = 100;
const WINDOW_NS: Ns = 1_000_000_000;

/// The processes that are connected, by a number that is not used again.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: HashMap<u64, Client>,
    next: u64,
    /// For each user but root who may have guests, and for all others together, when the current second began, ns, and
    /// how often they have connected in it.
    recent: HashMap<Option<u32>, (Ns, u32)>,
}

impl Clients {
    /// Whether `peer` may have another connection.
    pub(super) fn has_room_for(&self, peer: &Peer) -> bool {
        let own = || {
            self.all
                .values()
                .filter(|client| client.peer.uid == peer.uid)
        };
        let waiting = own().filter(|client| client.guest().is_none()).count();
        if peer.uid == 0 {
            // Room for root is not bounded by what others have.
            return waiting < MAX_CLIENTS;
        }
        waiting < MAX_WAITING && own().count() < MAX_OF_USER && self.all.len() < MAX_CLIENTS
    }

    /// Whether `peer` may connect at the time `now`, ns, and has not done so too often. Many users may have no guests,
    /// and one person may be many of them, so those strangers are counted as one.
    pub(super) fn may_connect(&mut self, peer: &Peer, is_stranger: bool, now: Ns) -> bool {
        if peer.uid == 0 {
            return true;
        }
        let whose = (!is_stranger).then_some(peer.uid);
        let (since, count) = self.recent.entry(whose).or_insert((now, 0));
        if now.saturating_sub(*since) >= WINDOW_NS {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_IN_WINDOW && (!is_stranger || self.strangers() < MAX_WAITING)
    }

    /// Connections of users who may have no guests.
    fn strangers(&self) -> usize {
        let all = self.all.values();
        all.filter(|client| client.is_stranger).count()
    }

    /// Adds `client`, and returns its number.
    pub(super) fn add(&mut self, client: Client) -> u64 {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, client);
        id
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Client> {
        self.all.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Client> {
        self.all.remove(&id)
    }

    /// The connection of the guest `number`.
    pub(super) fn of_guest(&self, number: u64) -> Option<u64> {
        let mut all = self.all.iter();
        all.find(|(_, client)| client.guest() == Some(number))
            .map(|(id, _)| *id)
    }

    /// When the next one is dropped unless its guest joins, or its reports of wakes are read again, ns.
    pub(super) fn next_timer(&self) -> Option<Ns> {
        let all = self.all.values();
        all.flat_map(|client| [client.expires(), client.resumes()])
            .flatten()
            .min()
    }

    /// Those whose reports of wakes are to be read again at the time `now`, ns.
    pub(super) fn resumed(&self, now: Ns) -> Vec<u64> {
        let is_due = |client: &Client| client.resumes().is_some_and(|at| at <= now);
        let all = self.all.iter().filter(|(_, client)| is_due(client));
        all.map(|(id, _)| *id).collect()
    }

    /// Those whose guests should have joined by `now`, ns.
    pub(super) fn expired(&self, now: Ns) -> Vec<u64> {
        let late = |client: &Client| client.expires().is_some_and(|at| at <= now);
        let all = self.all.iter().filter(|(_, client)| late(client));
        all.map(|(id, _)| *id).collect()
    }

    /// The numbers of all guests.
    pub(super) fn guests(&self) -> Vec<u64> {
        self.all.values().filter_map(Client::guest).collect()
    }
}

#[cfg(test)]
mod tests {
    use baton_link::connection::Connection;

    use super::super::client::PATIENCE_NS;
    use super::*;

    fn client(uid: u32, now: Ns) -> Client {
        let (connection, _) = Connection::pair().expect("sockets");
        let peer = Peer {
            pid: 1,
            uid,
            groups: vec![uid],
        };
        Client::new(connection, (peer, false), now)
    }

    #[test]
    fn a_user_who_connects_again_and_again_has_to_wait_and_others_have_not() {
        let mut clients = Clients::default();
        let (one, other) = (client(1000, 0).peer, client(1001, 0).peer);
        assert!((0..MAX_IN_WINDOW).all(|_| clients.may_connect(&one, false, 5)));
        assert!(!clients.may_connect(&one, false, 5));
        assert!(clients.may_connect(&other, false, 5));
        assert!(clients.may_connect(&client(0, 0).peer, false, 5));
        assert!(clients.may_connect(&one, false, 5 + WINDOW_NS));
    }

    #[test]
    fn users_without_a_grant_have_room_for_a_few_connections_in_all() {
        let mut clients = Clients::default();
        for uid in 2000.. {
            let mut stranger = client(uid, 0);
            stranger.is_stranger = true;
            if !clients.may_connect(&stranger.peer, true, 0) {
                break;
            }
            clients.add(stranger);
        }
        assert_eq!(clients.all.len(), MAX_WAITING);
        assert!(clients.may_connect(&client(1000, 0).peer, false, 0));
        assert_eq!(clients.recent.len(), 2);
    }

    #[test]
    fn a_user_with_many_connections_leaves_room_for_others_and_for_root() {
        let mut clients = Clients::default();
        let has_room = |clients: &Clients, uid| clients.has_room_for(&client(uid, 0).peer);
        let first = clients.add(client(1000, 0));
        for _ in 1..MAX_WAITING {
            assert!(has_room(&clients, 1000));
            clients.add(client(1000, 0));
        }
        assert!(!has_room(&clients, 1000) && has_room(&clients, 1001) && has_room(&clients, 0));
        clients.remove(first);
        assert!(has_room(&clients, 1000));
    }

    #[test]
    fn who_does_not_join_in_time_expires() {
        let mut clients = Clients::default();
        assert_eq!(clients.next_timer(), None);
        let first = clients.add(client(1000, 10));
        clients.add(client(1000, 20));
        assert_eq!(clients.next_timer(), Some(10 + PATIENCE_NS));
        assert!(clients.expired(9 + PATIENCE_NS).is_empty());
        assert_eq!(clients.expired(10 + PATIENCE_NS), [first]);
    }
}
