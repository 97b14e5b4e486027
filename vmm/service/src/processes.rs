//! The guests that have joined from other processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_link::connection::Connection;
use baton_link::counted::CountedVcpus;
use baton_link::message::{Order, PoolMessage, Share};
use rustix::process::{Signal, pidfd_send_signal};
use vcpu_sched::Counters;

use crate::grants::VcpuClaim;

/// A guest of another process.
#[derive(Debug)]
pub struct ProcessGuest {
    /// Its name.
    pub name: String,
    /// The user to whom it belongs.
    pub uid: u32,
    /// Its process.
    pub pid: i32,
    /// The socket of its console.
    pub console: Option<String>,
    /// Where its hints come from.
    pub hints: String,
    /// The control socket of its process.
    pub connection: Arc<Connection>,
    /// Its process, whatever has its number.
    pub pidfd: OwnedFd,
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

    /// The same of the guest called `name`: the last of that name, for another one may be about to leave still.
    pub fn named<T>(&self, name: &str, read: impl FnOnce(&ProcessGuest) -> T) -> Option<T> {
        self.all()
            .values()
            .rev()
            .find(|guest| guest.name == name)
            .map(read)
    }

    /// The names of the guests of user `uid`.
    pub fn names_of(&self, uid: u32) -> Vec<String> {
        let all = self.all();
        let own = all.values().filter(|guest| guest.uid == uid);
        own.map(|guest| guest.name.clone()).collect()
    }

    /// Sends `message` to all of their processes.
    pub fn send_all(&self, message: &PoolMessage) {
        for guest in self.all().values() {
            // A process that does not read notices the end of the connection.
            let _ = guest.connection.send(message, None);
        }
    }
}
