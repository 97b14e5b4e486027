//! How a guest joins a pool whose executors may run others.
//!
//! 1. [`admit`]: under the pool's lock the policy admits the guest, and the pool has its name and its ids. What
//!    is refused here leaves nothing behind.
//! 2. [`Admission::prepare`]: without the lock, threads are started for its vCPUs. If one cannot be started,
//!    step 1 is undone.
//! 3. [`Prepared::begin`]: its vCPUs are put into the pool, and its devices' threads need grants from then on. The
//!    vCPU that starts the guest is woken.
//!
//! Until step 3 the policy has halted vCPUs that nothing wakes, so that no executor looks for them. The guests
//! with which a run starts join in the same way, all of them one step after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use baton_machine::{Guest, GuestRecord};
use vcpu_sched::GuestId;

use super::admission::{self, Request};
use super::halt_threads;
use super::join_error::{JoinError, JoinErrorKind, RefusedJoin};
use super::late_halts;
use super::local_vcpu::LocalVcpu;
use super::new_vcpu::{NewVcpu, StartedThreads};
use super::owned_vcpu::OwnedVcpu;
use super::policy_join::{self, InPolicy};
use super::pool::Pool;
use super::vcpu_threads;
use super::workers::DeviceWorker;
use crate::ready_guest::ReadyGuest;

/// A guest that the policy has admitted.
pub(super) struct Admission {
    ready: ReadyGuest,
    in_policy: InPolicy,
}

/// A guest that is ready to begin.
pub(super) struct Prepared {
    admission: Admission,
    threads: Vec<StartedThreads>,
}

/// Step 1, for a guest with whose names a trace begins.
///
/// # Errors
/// Why the guest cannot join. The pool is as before.
pub(super) fn admit(pool: &Arc<Pool>, ready: ReadyGuest) -> Result<Admission, Box<RefusedJoin>> {
    admitted(
        ready,
        |record, requests, workers| policy_join::admit(pool, record, requests, workers, None),
        pool,
    )
}

/// Step 1, for a guest that joins while others run.
///
/// # Errors
/// As [`admit`].
pub(super) fn admit_later(
    pool: &Arc<Pool>,
    ready: ReadyGuest,
) -> Result<Admission, Box<RefusedJoin>> {
    admitted(
        ready,
        |record, requests, workers| policy_join::admit_later(pool, record, requests, workers),
        pool,
    )
}

fn admitted(
    ready: ReadyGuest,
    admit: impl FnOnce(&Arc<GuestRecord>, &[Request], usize) -> Result<InPolicy, JoinErrorKind>,
    pool: &Pool,
) -> Result<Admission, Box<RefusedJoin>> {
    let requests = admission::requests(&ready.config, pool.host_cpus());
    let workers = ready.guest.devices().count();
    match admit(ready.guest.record(), &requests, workers) {
        Ok(in_policy) => Ok(Admission { ready, in_policy }),
        Err(kind) => Err(refused(ready, kind)),
    }
}

impl Admission {
    /// Step 2.
    ///
    /// # Errors
    /// If the host refuses a thread, or halts would be noticed too late on one. The pool is as before step 1.
    pub(super) fn prepare(self, pool: &Arc<Pool>) -> Result<Prepared, Box<RefusedJoin>> {
        match self.start_threads(pool) {
            Ok(threads) => Ok(Prepared {
                admission: self,
                threads,
            }),
            Err(kind) => Err(self.undo(pool, kind)),
        }
    }

    fn start_threads(&self, pool: &Arc<Pool>) -> Result<Vec<StartedThreads>, JoinErrorKind> {
        let settings = &pool.settings;
        late_halts::check_joining(settings.late_halts, &self.ready.config)?;
        let mut threads = Vec::with_capacity(self.ready.vcpus.len());
        for (index, host_cpus) in (0..).zip(&self.in_policy.host_cpus) {
            let vcpu = NewVcpu {
                guest_name: &self.ready.guest.name,
                index,
                host_cpus,
            };
            let started = if settings.own_threads {
                vcpu_threads::start(pool, &vcpu)?
            } else if settings.can_sleep {
                halt_threads::start(pool, &vcpu)?
            } else {
                StartedThreads {
                    ways: halt_threads::none(pool),
                    owner: Box::new(()),
                    detect_halts: true,
                }
            };
            threads.push(started);
        }
        let detect_halts = threads.iter().all(|threads| threads.detect_halts);
        if !detect_halts {
            pool.own_threads_detect_halts
                .store(false, Ordering::Relaxed);
        }
        let config = std::slice::from_ref(&self.ready.config);
        late_halts::check_threads(settings.late_halts, config, detect_halts)?;
        Ok(threads)
    }

    /// Takes the guest out again.
    fn undo(self, pool: &Pool, kind: JoinErrorKind) -> Box<RefusedJoin> {
        policy_join::undo(pool, &self.in_policy.ids);
        refused(self.ready, kind)
    }
}

impl Prepared {
    /// Step 3.
    ///
    /// # Errors
    /// If the pool has stopped meanwhile.
    pub(super) fn begin(self, pool: &Arc<Pool>) -> Result<(), Box<RefusedJoin>> {
        let guest = Arc::clone(&self.admission.ready.guest);
        let unstarted = self.place(pool)?;
        let of_guest = Arc::downgrade(pool);
        guest.on_end(move |guest, _| {
            if let Some(pool) = of_guest.upgrade() {
                pool.remove_guest(guest);
            }
        });
        pool.let_sleep(unstarted);
        Ok(())
    }

    /// Puts the vCPUs into the pool, and wakes the one that starts the guest. Returns those that wait to be started,
    /// if they can sleep in `KVM_RUN`.
    fn place(self, pool: &Arc<Pool>) -> Result<Vec<OwnedVcpu>, Box<RefusedJoin>> {
        let Self { admission, threads } = self;
        let Admission { ready, in_policy } = admission;
        let ids = &in_policy.ids;
        let ReadyGuest {
            guest,
            config,
            vcpus,
        } = ready;
        require_grants(pool, ids.guest(), &guest);
        let mut owners = Vec::with_capacity(threads.len());
        let mut owned = Vec::with_capacity(threads.len());
        for ((vcpu, &id), threads) in vcpus.into_iter().zip(&**ids.vcpus()).zip(threads) {
            owned.push(LocalVcpu::new(id, ids.clone(), vcpu, threads.ways));
            owners.push(threads.owner);
        }
        let can_sleep = pool.settings.can_sleep;
        // One critical section: once the guest has been placed it may leave, and its ids be those of another.
        let placed = pool.change(|state, now| {
            if state.is_stopping() {
                return Err((owned, owners));
            }
            let owned = owned.into_iter().map(OwnedVcpu::Local).collect();
            state.place(ids.guest(), owned, owners);
            Ok(state.begin(ids.guest(), can_sleep, now))
        });
        placed.map_err(|(owned, owners)| {
            drop(owners);
            let admission = Admission {
                ready: ReadyGuest {
                    guest,
                    config,
                    vcpus: owned.into_iter().map(LocalVcpu::into_vcpu).collect(),
                },
                in_policy,
            };
            admission.undo(pool, JoinErrorKind::Stopped)
        })
    }
}

/// The threads of the devices of `guest` work only when the policy grants them CPU time.
fn require_grants(pool: &Arc<Pool>, id: GuestId, guest: &Guest) {
    let workers = pool.change(|state, _| state.workers_of(id));
    for (slot, (id, inbox)) in workers.into_iter().enumerate() {
        let worker = DeviceWorker::new(id, inbox, pool);
        guest.devices().require_cpu_grants(slot, Arc::new(worker));
    }
}

fn refused(ready: ReadyGuest, kind: JoinErrorKind) -> Box<RefusedJoin> {
    let error = JoinError {
        guest: ready.guest.name.clone(),
        kind,
    };
    Box::new(RefusedJoin {
        guest: ready,
        error,
    })
}
