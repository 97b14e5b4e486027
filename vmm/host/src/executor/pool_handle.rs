//! A handle by which other threads change the guests of a pool while it runs.
//!
//! Each call returns when what it did is in force. A call takes the pool's lock for short times, and no other
//! lock, so a call that waits keeps neither executors nor other calls waiting.

use std::sync::Arc;

use baton_config::ExecutorPriority;
use baton_machine::{GuestEnd, GuestRecord};
use vcpu_sched::{CpuId, GuestId, Ns};

use super::guest_error::GuestCallError;
use super::guest_key::{GuestIdentity, GuestKey};
use super::join;
use super::join_error::RefusedJoin;
use super::pool::Pool;
use super::pool_guest::{Membership, PoolGuest};
use super::pool_state::PoolState;
use crate::ready_guest::ReadyGuest;
use crate::report::VcpuAccount;

/// Changes the guests of a pool that runs.
#[derive(Clone)]
pub struct PoolHandle {
    pub(super) pool: Arc<Pool>,
}

impl std::fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolHandle").finish_non_exhaustive()
    }
}

/// What a guest of a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// The policy decides when its vCPUs run.
    Running,
    /// It gets no CPU time.
    Paused,
    /// It has ended by itself. Its account is still there ([`PoolHandle::leave`]).
    Ended,
}

/// A guest in the list of a pool.
#[derive(Clone, Debug)]
pub struct GuestListed {
    /// What is known of the guest.
    pub record: Arc<GuestRecord>,
    /// What it does.
    pub state: GuestState,
}

impl GuestListed {
    /// The identity of the guest.
    #[must_use]
    pub fn identity(&self) -> GuestIdentity {
        GuestIdentity::of(&self.record)
    }
}

/// What is left of a guest that has left its pool.
#[derive(Clone, Debug)]
pub struct GuestAccount {
    /// The guest's name, how it ended and what it reported.
    pub record: Arc<GuestRecord>,
    /// The numbers of its vCPUs, in order.
    pub vcpus: Vec<VcpuAccount>,
    /// CPU time by which the guest was ahead of others, ns. The next guest of its user is to owe it.
    pub lead_ns: Ns,
}

impl PoolHandle {
    /// The host CPUs on which vCPUs of other processes have a priority while they have the command to run; none if they
    /// have none.
    #[must_use]
    pub fn cpus_with_priority(&self) -> Vec<usize> {
        match self.pool.settings.foreign_priority {
            ExecutorPriority::Off => Vec::new(),
            ExecutorPriority::Fifo(_) => self.pool.member_cpus(),
        }
    }

    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        let pool = Arc::clone(pool);
        Self { pool }
    }

    /// Has a guest join the pool, and run. Its name must not be that of another guest of the pool,
    /// and its configuration must be valid.
    ///
    /// # Errors
    /// The guest itself, and why it could not join; nothing has changed then. If a reservation does not fit, the
    /// error has what would, and when more is free.
    pub fn join(&self, guest: ReadyGuest) -> Result<(), Box<RefusedJoin>> {
        let prepared = join::admit_later(&self.pool, guest)?.prepare(&self.pool)?;
        prepared.begin(&self.pool)
    }

    /// The identity of the guest that has the name `name` now.
    ///
    /// # Errors
    /// If there is no such guest, or the pool has stopped.
    pub fn find(&self, name: &str) -> Result<GuestIdentity, GuestCallError> {
        self.pool.change(|state, _| {
            let guest = state.joined(GuestKey::Name(name))?;
            Ok(GuestIdentity::of(guest.record()))
        })
    }

    /// Ends `guest`, unless it has ended, and takes it out of the pool. Afterwards none of its vCPUs runs
    /// or sleeps anywhere, the threads of the vCPUs have ended, and its name is free. What the guest has of the
    /// host is released by its reaper; a thread of a device that hangs in the host's kernel is not waited for.
    ///
    /// # Errors
    /// If there is no such guest, or the pool has stopped.
    pub fn leave<'a>(
        &self,
        guest: impl Into<GuestKey<'a>>,
    ) -> Result<GuestAccount, GuestCallError> {
        let key = guest.into();
        let (id, record) = self.pool.change(|state, _| {
            let guest = state.joined(key)?;
            guest.membership = Membership::Leaving;
            let found = (guest.ids().guest(), Arc::clone(guest.record()));
            state.wait_for(found.0);
            Ok(found)
        })?;
        record.end(GuestEnd::Removed);
        // Where the guest has ended by itself, another thread may be about to do the same.
        self.pool.remove_guest(&record);
        self.pool
            .wait_until(id, |state| state.is_back(id).then_some(()));
        let (account, threads, workers) = self.pool.change(|state, now| {
            let account = GuestAccount {
                record,
                vcpus: state.accounts(id, now),
                lead_ns: state.lead(id),
            };
            (account, state.take_threads_of(id), state.workers_of(id))
        });
        drop(threads);
        for (_, inbox) in workers {
            inbox.close();
        }
        self.pool.change(|state, now| state.leave(id, now));
        Ok(account)
    }

    /// Pauses `guest`: its vCPUs and the threads of its devices get no CPU time. Returns when none of
    /// them runs any more. vCPUs that are halted stay so; what wakes them meanwhile is delivered when the guest is
    /// resumed. Clocks of the guest go on. When it is resumed, each vCPU that missed a second or more is reported
    /// to have been stopped, as after SIGSTOP.
    ///
    /// # Errors
    /// If there is no such guest, it has ended or is paused, or the pool has stopped.
    pub fn pause<'a>(&self, guest: impl Into<GuestKey<'a>>) -> Result<(), GuestCallError> {
        let key = guest.into();
        let id = self.pool.change(|state, now| {
            let guest = state.going_on(key)?;
            if guest.is_paused {
                return Err(GuestCallError::Paused(key.name().to_owned()));
            }
            let id = guest.ids().guest();
            state.pause(id, now);
            state.wait_for(id);
            Ok(id)
        })?;
        self.pool
            .wait_until(id, |state| state.is_at_rest(id).then_some(()));
        Ok(())
    }

    /// Resumes `guest`, which is paused.
    ///
    /// # Errors
    /// If there is no such guest, it has ended or is not paused, or the pool has stopped.
    pub fn resume<'a>(&self, guest: impl Into<GuestKey<'a>>) -> Result<(), GuestCallError> {
        let key = guest.into();
        self.pool.change(|state, now| {
            let guest = state.going_on(key)?;
            if !std::mem::take(&mut guest.is_paused) {
                return Err(GuestCallError::NotPaused(key.name().to_owned()));
            }
            let id = guest.ids().guest();
            state.sched.resume(id, now);
            state.changed(id);
            Ok(())
        })
    }

    /// The guests of the pool, in the order in which they joined.
    #[must_use]
    pub fn list(&self) -> Vec<GuestListed> {
        let listed = |guest: &PoolGuest| GuestListed {
            record: Arc::clone(guest.record()),
            state: match (guest.record().has_ended(), guest.is_paused) {
                (true, _) => GuestState::Ended,
                (false, true) => GuestState::Paused,
                (false, false) => GuestState::Running,
            },
        };
        self.pool.change(|state, _| {
            let guests = state.guests.in_order().into_iter();
            let guests = guests.filter(|guest| guest.membership == Membership::Joined);
            guests.map(listed).collect()
        })
    }
}

impl PoolState {
    /// The guest of `key`, which has joined and is not leaving.
    pub(super) fn joined(&mut self, key: GuestKey<'_>) -> Result<&mut PoolGuest, GuestCallError> {
        if self.is_stopping() {
            return Err(GuestCallError::Stopped);
        }
        let id = match key {
            GuestKey::Name(name) => self.guests.named(name),
            GuestKey::Record(record) => self.guests.of_record(record),
        };
        id.and_then(|id| self.guests.get_mut(id))
            .filter(|guest| guest.membership == Membership::Joined)
            .ok_or_else(|| GuestCallError::NoGuest(key.name().to_owned()))
    }

    /// The same of a guest that has not ended.
    pub(super) fn going_on(&mut self, key: GuestKey<'_>) -> Result<&mut PoolGuest, GuestCallError> {
        let guest = self.joined(key)?;
        if guest.record().has_ended() {
            return Err(GuestCallError::Ended(key.name().to_owned()));
        }
        Ok(guest)
    }

    /// Whether no CPU runs anything for the guest `id`, and none of its devices' threads works. Also true if the
    /// pool stops, or the guest was resumed meanwhile.
    fn is_at_rest(&self, id: GuestId) -> bool {
        let Some(guest) = self.guests.get(id) else {
            return true;
        };
        let cpus = (0..self.sched.config().cpus as u32).map(CpuId);
        let runs = |cpu: CpuId| {
            let view = self.sched.view_cpu(cpu);
            view.is_some_and(|view| guest.ids().to_guest(view.curr).is_some())
        };
        let works = cpus.into_iter().any(runs) || self.workers.any_works(&guest.workers);
        !works || !guest.is_paused || self.is_stopping()
    }
}
