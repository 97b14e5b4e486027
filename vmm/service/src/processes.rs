//! The guests that have joined from other processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_host::executor::GuestIdentity;
use baton_link::connection::Connection;
use baton_link::counted::CountedVcpus;
use baton_link::message::{Order, PoolMessage, Share};
use rustix::process::{Signal, pidfd_send_signal};
use vcpu_sched::Counters;

use crate::grants::VcpuClaim;
use crate::notice_limit::NoticeLimit;

/// A guest of another process.
#[derive(Debug)]
pub struct ProcessGuest {
    /// Which guest of the pool it is.
    pub identity: GuestIdentity,
    /// The user to whom it belongs.
    pub uid: u32,
    /// Its process.
    pub pid: i32,
    /// The socket of its console.
    pub console: Option<String>,
    /// Where its hints come from.
    pub hints: String,
    /// How often it has been started again.
    pub restarts: u32,
    /// Whether it has ended and is to start again.
    pub is_restarting: bool,
    /// The control socket of its process.
    pub connection: Arc<Connection>,
    /// Its process, whatever has its number.
    pub pidfd: OwnedFd,
    /// How often its changes of itself are reported.
    pub(crate) notices: NoticeLimit,
}

impl ProcessGuest {
    /// Sends `order` to its process. False: the process does not read.
    #[must_use]
    pub fn order(&self, order: Order) -> bool {
        self.connection
            .send(&PoolMessage::Order(order), None)
            .is_ok()
    }

    /// Sends its process what its vCPUs have now, so that it joins again with that. A process that does not read
    /// joins with what it had.
    pub(crate) fn show_claims(&self, claims: &[VcpuClaim]) {
        let share = |claim: &VcpuClaim| Share::of(claim.params, claim.host_cpus.clone());
        let shares = claims.iter().map(share).collect();
        let _ = self.connection.send(&PoolMessage::Claims(shares), None);
    }

    /// Sends its process whether it is paused, so that it stays so when the pool is gone. A process that does not read
    /// runs on then.
    pub(crate) fn show_paused(&self, is_paused: bool) {
        let _ = self.connection.send(&PoolMessage::Paused(is_paused), None);
    }

    /// Sends its process, whose guest has left, what was counted for each vCPU. A process that does not read does
    /// without.
    pub(crate) fn show_counters(&self, counters: &[Counters]) {
        let counted = CountedVcpus::new(counters);
        let _ = self.connection.send(&PoolMessage::Counted(counted), None);
    }

    /// Kills its process, unless that has ended.
    ///
    /// # Errors
    /// If this process may not do that.
    pub fn kill(&self) -> rustix::io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            result => result,
        }
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub struct Processes(Mutex<BTreeMap<u64, ProcessGuest>>);

impl Processes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, ProcessGuest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest `number` has joined.
    pub fn add(&self, number: u64, guest: ProcessGuest) {
        self.all().insert(number, guest);
    }

    /// The guest `number` is gone.
    pub fn remove(&self, number: u64) -> Option<ProcessGuest> {
        self.all().remove(&number)
    }

    /// What `read` returns of the guest `number`, if there is one.
    pub fn with<T>(&self, number: u64, read: impl FnOnce(&mut ProcessGuest) -> T) -> Option<T> {
        self.all().get_mut(&number).map(read)
    }

    /// What `read` returns of the guest `identity`, if it is one of these.
    pub fn of<T>(
        &self,
        identity: &GuestIdentity,
        read: impl FnOnce(&ProcessGuest) -> T,
    ) -> Option<T> {
        let all = self.all();
        let mut guests = all.values();
        guests.find(|guest| guest.identity == *identity).map(read)
    }

    /// The number of the guest `identity` and the user to whom it belongs.
    pub fn find(&self, identity: &GuestIdentity) -> Option<(u64, u32)> {
        let all = self.all();
        let mut guests = all.iter();
        guests
            .find(|(_, guest)| guest.identity == *identity)
            .map(|(number, guest)| (*number, guest.uid))
    }

    /// The guests of user `uid`.
    pub fn of_user(&self, uid: u32) -> Vec<GuestIdentity> {
        let all = self.all();
        let own = all.values().filter(|guest| guest.uid == uid);
        own.map(|guest| guest.identity.clone()).collect()
    }

    /// Sends `message` to all of their processes.
    pub fn send_all(&self, message: &PoolMessage) {
        for guest in self.all().values() {
            // A process that does not read notices the end of the connection.
            let _ = guest.connection.send(message, None);
        }
    }
}
