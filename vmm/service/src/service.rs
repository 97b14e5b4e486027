//! The pool as those see it who have guests in it: what they may do, and what follows.

use std::sync::{Arc, Mutex, PoisonError};

use baton_api::{EventKind, Rights as ApiRights};
use baton_host::executor::{PoolHandle, PoolReader};
use baton_link::message::Order;
use baton_os::peer::Peer;

use crate::events::Events;
use crate::failure::{Failure, FailureKind};
use crate::grants::{Action, Denied, Grants, Rights, Usage, VcpuClaim};
use crate::host_cpus::HostCpus;
use crate::process_pool::ProcessPool;
use crate::processes::Processes;

/// The pool, its guests' owners and what they may do.
pub struct Service {
    pub(crate) handle: PoolHandle,
    pub(crate) reader: PoolReader,
    pub(crate) pool: Box<dyn ProcessPool>,
    pub(crate) grants: Grants,
    pub(crate) processes: Processes,
    pub(crate) events: Events,
    /// Host CPUs of the pool.
    pub(crate) host_cpus: HostCpus,
    /// Held while what a user has is compared with his grant and changed.
    changes: Mutex<()>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// The service of the pool of `handle` and `reader`, on the `host_cpus`, in which `pool` runs the guests of other
    /// processes.
    #[must_use]
    pub fn new(
        handle: PoolHandle,
        reader: PoolReader,
        pool: Box<dyn ProcessPool>,
        grants: Grants,
        host_cpus: HostCpus,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle,
            reader,
            pool,
            grants,
            processes: Processes::default(),
            events: Events::default(),
            host_cpus,
            changes: Mutex::new(()),
        })
    }

    /// The events of the pool.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Does `change` while no other change is compared with a grant.
    pub(crate) fn one_at_a_time<T>(&self, change: impl FnOnce() -> T) -> T {
        let _held = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        change()
    }

    /// Whether `peer` may see what runs.
    pub(crate) fn check_see(&self, peer: &Peer) -> Result<Rights, Denied> {
        self.grants.check(peer, Action::See)
    }

    /// What `peer` may do, as the API has it.
    pub(crate) fn rights(&self, peer: &Peer) -> ApiRights {
        let rights = self.grants.of(peer);
        ApiRights {
            uid: peer.uid,
            all: rights == Rights::All,
            grant: match rights {
                Rights::Granted(terms) => Some(terms.listed()),
                Rights::All | Rights::None => None,
            },
        }
    }

    /// Whether `peer` may change the guest `name`, which has to exist.
    pub(crate) fn check_control(&self, peer: &Peer, name: &str) -> Result<Rights, Failure> {
        // A guest that is about to join has no owner for a moment.
        self.one_at_a_time(|| self.check_control_alone(peer, name))
    }

    /// The same for a caller within [`Self::one_at_a_time`].
    pub(crate) fn check_control_alone(&self, peer: &Peer, name: &str) -> Result<Rights, Failure> {
        // One who may see nothing does not learn which guests there are.
        self.check_see(peer)?;
        let owner = self.processes.named(name, |guest| guest.uid);
        if owner.is_none() && self.handle.terms(name).is_err() {
            return Err(Failure::no_guest(name));
        }
        Ok(self.grants.check(peer, Action::Control(owner))?)
    }

    /// What user `uid` has in the pool, without the guest `except`.
    pub(crate) fn usage_of(&self, uid: u32, except: &str) -> Usage {
        let mut usage = Usage::default();
        let names = self.processes.names_of(uid);
        for name in names.iter().filter(|name| *name != except) {
            // A guest that has just left has nothing.
            if let Ok(vcpus) = self.claims_of(name) {
                usage.add(&vcpus);
            }
        }
        usage
    }

    /// What the vCPUs of the guest `name` have.
    pub(crate) fn claims_of(&self, name: &str) -> Result<Vec<VcpuClaim>, Failure> {
        let terms = self.handle.terms(name)?.into_iter();
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
        self.check_control(peer, name)?;
        self.handle.pause(name)?;
        self.processes.named(name, |guest| guest.show_paused(true));
        let guest = name.to_owned();
        self.events.publish(EventKind::Paused { guest });
        Ok(())
    }

    /// Resumes the guest `name`.
    ///
    /// # Errors
    /// If `peer` may not, or the guest is not paused.
    pub fn resume(&self, peer: &Peer, name: &str) -> Result<(), Failure> {
        self.one_at_a_time(|| {
            self.check_control_alone(peer, name)?;
            self.handle.resume(name).map_err(Failure::from)?;
            self.processes.named(name, |guest| guest.show_paused(false));
            Ok::<_, Failure>(())
        })?;
        let guest = name.to_owned();
        self.events.publish(EventKind::Resumed { guest });
        Ok(())
    }

    /// Gives `order` to the process of the guest `name`. Its effect shows later.
    ///
    /// # Errors
    /// If `peer` may not, the guest has no process of its own, or the process does not read.
    pub fn order(&self, peer: &Peer, name: &str, order: Order) -> Result<(), Failure> {
        // Nobody else's guest gets the name between the check and the order.
        let ordered = self.one_at_a_time(|| {
            self.check_control_alone(peer, name)?;
            Ok::<_, Failure>(self.processes.named(name, |guest| guest.order(order)))
        })?;
        match ordered {
            Some(true) => {
                let (guest, order) = (name.to_owned(), listed(order));
                self.events.publish(EventKind::Ordered { guest, order });
                Ok(())
            }
            Some(false) => Err(Failure::new(
                FailureKind::Conflict,
                format!("the process of guest {name} takes no orders; kill it"),
            )),
            None => Err(no_process(name)),
        }
    }

    /// Kills the process of the guest `name`, or takes a guest without a process out of the pool.
    ///
    /// # Errors
    /// If `peer` may not, or the host refuses.
    pub fn kill(&self, peer: &Peer, name: &str) -> Result<(), Failure> {
        let killed = self.one_at_a_time(|| {
            self.check_control_alone(peer, name)?;
            let killed = self.processes.named(name, |guest| guest.kill());
            if killed.is_none() {
                drop(self.handle.leave(name)?);
            }
            Ok::<_, Failure>(killed)
        })?;
        match killed {
            Some(Ok(())) | None => {}
            Some(Err(error)) => {
                let what = format!(
                    "the pool cannot kill the process of guest {name}: {error}; it needs CAP_KILL"
                );
                return Err(Failure::new(FailureKind::Conflict, what));
            }
        }
        self.events.publish(EventKind::Ordered {
            guest: name.to_owned(),
            order: baton_api::GuestOrder::Kill,
        });
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
