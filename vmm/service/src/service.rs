//! The pool as those see it who have guests in it: what they may do, and what follows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use baton_api::{EventKind, Rights as ApiRights};
use baton_host::executor::{GuestIdentity, GuestKey, PoolHandle, PoolReader};
use baton_link::message::Order;
use baton_os::peer::Peer;

use crate::events::Events;
use crate::failure::{Failure, FailureKind};
use crate::grants::{Action, Denied, Grants, Rights, Usage, VcpuClaim};
use crate::host_cpus::HostCpus;
use crate::leads::Leads;
use crate::names::Names;
use crate::process_pool::ProcessPool;
use crate::processes::Processes;

/// The pool, its guests' owners and what they may do.
pub struct Service {
    pub(crate) handle: PoolHandle,
    pub(crate) reader: PoolReader,
    pub(crate) pool: Box<dyn ProcessPool>,
    grants: RwLock<Arc<Grants>>,
    pub(crate) names: Names,
    pub(crate) leads: Leads,
    pub(crate) processes: Processes,
    pub(crate) events: Events,
    /// Whether all parts of the pool make progress, so that guests may join.
    pub(crate) works: AtomicBool,
    /// Host CPUs of the pool.
    pub(crate) host_cpus: HostCpus,
    /// Held while what a user has is compared with his grant and changed.
    changes: Mutex<()>,
}

/// A guest that a caller may change, as it was when that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) identity: GuestIdentity,
    /// Its number among the guests of other processes, if it is one of them.
    pub(crate) number: Option<u64>,
    /// What the caller may do.
    pub(crate) rights: Rights,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// The service of the pool of `handle` and `reader`, on the `host_cpus`, in which `pool` runs the guests of other
    /// processes. `names` has those that are kept for guests of an earlier pool.
    #[must_use]
    pub fn new(
        handle: PoolHandle,
        reader: PoolReader,
        pool: Box<dyn ProcessPool>,
        grants: Grants,
        names: Names,
        host_cpus: HostCpus,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle,
            reader,
            pool,
            grants: RwLock::new(Arc::new(grants)),
            names,
            leads: Leads::default(),
            processes: Processes::default(),
            events: Events::default(),
            works: AtomicBool::new(true),
            host_cpus,
            changes: Mutex::new(()),
        })
    }

    /// The events of the pool.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Records whether all parts of the pool make progress. To be called about once a second, because guests' processes
    /// leave a pool that does not tell them for some seconds that it works.
    pub fn set_works(&self, works: bool) {
        self.works.store(works, Ordering::Relaxed);
        if works {
            self.handle.beat(None);
        }
    }

    /// Does `change` while no other change is compared with a grant.
    pub(crate) fn one_at_a_time<T>(&self, change: impl FnOnce() -> T) -> T {
        let _held = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        change()
    }

    /// The grants in force.
    #[must_use]
    pub fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other grants in force. Guests that have joined keep what they have.
    pub fn set_grants(&self, grants: Grants) {
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
    }

    /// Whether `peer` may see what runs.
    pub(crate) fn check_see(&self, peer: &Peer) -> Result<Rights, Denied> {
        self.grants().check(peer, Action::See)
    }

    /// What `peer` may do, as the API has it.
    pub(crate) fn rights(&self, peer: &Peer) -> ApiRights {
        let rights = self.grants().of(peer);
        ApiRights {
            uid: peer.uid,
            all: rights == Rights::All,
            grant: match rights {
                Rights::Granted(terms) => Some(terms.listed()),
                Rights::All | Rights::None => None,
            },
        }
    }

    /// The guest that is called `name`, which `peer` may change.
    pub(crate) fn target(&self, peer: &Peer, name: &str) -> Result<Target, Failure> {
        // A guest that is about to join has no owner for a moment.
        self.one_at_a_time(|| self.target_alone(peer, name))
    }

    /// The same for a caller within [`Self::one_at_a_time`].
    pub(crate) fn target_alone(&self, peer: &Peer, name: &str) -> Result<Target, Failure> {
        // One who may see nothing does not learn which guests there are.
        self.check_see(peer)?;
        let identity = self.handle.find(name)?;
        let of_process = self.processes.find(&identity);
        let owner = of_process.map(|(_, uid)| uid);
        Ok(Target {
            rights: self.grants().check(peer, Action::Control(owner))?,
            number: of_process.map(|(number, _)| number),
            identity,
        })
    }

    /// What user `uid` has in the pool, without the guest `except`.
    pub(crate) fn usage_of(&self, uid: u32, except: Option<&GuestIdentity>) -> Usage {
        let mut usage = Usage::default();
        let guests = self.processes.of_user(uid);
        for guest in guests.iter().filter(|guest| Some(*guest) != except) {
            // A guest that has just left has nothing.
            if let Ok(vcpus) = self.claims_of(guest) {
                usage.add(&vcpus);
            }
        }
        usage
    }

    /// What the vCPUs of `guest` have.
    pub(crate) fn claims_of<'a>(
        &self,
        guest: impl Into<GuestKey<'a>>,
    ) -> Result<Vec<VcpuClaim>, Failure> {
        let terms = self.handle.terms(guest)?.into_iter();
        let claim = |listed: baton_host::executor::VcpuListed| VcpuClaim {
            params: listed.params,
            host_cpus: listed.host_cpus,
        };
        Ok(terms.map(claim).collect())
    }

    /// Pauses the guest `name`, and waits until none of its vCPUs runs.
    ///
    /// # Errors
    /// If `peer` may not, or the guest does not run.
    pub fn pause(&self, peer: &Peer, name: &str) -> Result<(), Failure> {
        let target = self.target(peer, name)?;
        self.handle.pause(&target.identity)?;
        self.show_paused(&target, true);
        let guest = name.to_owned();
        self.events
            .publish_of(peer.uid, EventKind::Paused { guest });
        Ok(())
    }

    /// Tells the process of `target`, if it has one, whether it is paused.
    fn show_paused(&self, target: &Target, is_paused: bool) {
        let shown = |number| {
            self.processes
                .with(number, |guest| guest.show_paused(is_paused))
        };
        target.number.and_then(shown);
    }

    /// Resumes the guest `name`.
    ///
    /// # Errors
    /// If `peer` may not, or the guest is not paused.
    pub fn resume(&self, peer: &Peer, name: &str) -> Result<(), Failure> {
        self.one_at_a_time(|| {
            let target = self.target_alone(peer, name)?;
            self.handle.resume(&target.identity)?;
            self.show_paused(&target, false);
            Ok::<_, Failure>(())
        })?;
        let guest = name.to_owned();
        self.events
            .publish_of(peer.uid, EventKind::Resumed { guest });
        Ok(())
    }

    /// Gives `order` to the process of the guest `name`. Its effect shows later.
    ///
    /// # Errors
    /// If `peer` may not, the guest has no process of its own, or the process does not read.
    pub fn order(&self, peer: &Peer, name: &str, order: Order) -> Result<(), Failure> {
        let target = self.target(peer, name)?;
        let number = target.number.ok_or_else(|| no_process(name))?;
        match self.processes.with(number, |guest| guest.order(order)) {
            Some(true) => {
                let (guest, order) = (name.to_owned(), listed(order));
                self.events
                    .publish_of(peer.uid, EventKind::Ordered { guest, order });
                Ok(())
            }
            Some(false) => Err(Failure::new(
                FailureKind::Conflict,
                format!("the process of guest {name} takes no orders; kill it"),
            )),
            // It has left meanwhile.
            None => Err(Failure::no_guest(name)),
        }
    }

    /// Kills the process of the guest `name`, or takes a guest without a process out of the pool.
    ///
    /// # Errors
    /// If `peer` may not, or the host refuses.
    pub fn kill(&self, peer: &Peer, name: &str) -> Result<(), Failure> {
        let target = self.target(peer, name)?;
        let killed = match target.number {
            Some(number) => self.processes.with(number, |guest| guest.kill()),
            None => {
                drop(self.handle.leave(&target.identity)?);
                Some(Ok(()))
            }
        };
        match killed {
            // One that has left meanwhile needs no killing.
            Some(Ok(())) | None => {}
            Some(Err(error)) => {
                let what = format!(
                    "the pool cannot kill the process of guest {name}: {error}; it needs CAP_KILL"
                );
                return Err(Failure::new(FailureKind::Conflict, what));
            }
        }
        let (guest, order) = (name.to_owned(), baton_api::GuestOrder::Kill);
        self.events
            .publish_of(peer.uid, EventKind::Ordered { guest, order });
        Ok(())
    }
}

fn listed(order: Order) -> baton_api::GuestOrder {
    match order {
        Order::PowerButton => baton_api::GuestOrder::PowerButton,
        Order::PowerOff => baton_api::GuestOrder::PowerOff,
        Order::Reset => baton_api::GuestOrder::Reset,
    }
}

fn no_process(name: &str) -> Failure {
    let what = format!("guest {name} runs in the pool's own process, which takes no orders for it");
    Failure::new(FailureKind::Conflict, what)
}
