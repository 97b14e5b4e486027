//! How a guest of another process joins a pool, and how it goes. Its threads are there already, so there is nothing
//! to start.

use std::sync::Arc;

use baton_link::foreign_process::ForeignProcess;
use baton_link::join::JoinedGuest;
use baton_link::message::{GuestEnded, JoinRequest};
use baton_machine::{GuestEnd, GuestRecord, HintsInForce};
use vcpu_sched::Ns;

use super::admission::{self, Request};
use super::foreign_guest::{ForeignGuest, GuestNumber, ProcessReport};
use super::foreign_sleep::ForeignSlot;
use super::foreign_table::ForeignWays;
use super::foreign_vcpu::{ForeignSleep, ForeignVcpu, VcpuWays};
use super::guest_error::GuestCallError;
use super::guest_key::GuestKey;
use super::join_error::{JoinError, JoinErrorKind};
use super::owned_vcpu::OwnedVcpu;
use super::policy_ids::PolicyIds;
use super::policy_join::{self, InPolicy};
use super::pool::Pool;
use super::pool_guest::GuestThreads;
use super::pool_handle::{GuestAccount, PoolHandle};
use super::pool_state::PoolState;

impl PoolHandle {
    /// Has the guest of another `process` join the pool, and run. `request` is what that process has requested, and
    /// `joined` what [`accept`](baton_link::join::accept) has made of it. Errors of the process go to `report`.
    /// Returns the number of the guest, which no other guest of the pool gets. The guest starts as if it had just had
    /// `lead` ns of CPU time, which an earlier guest of its user was ahead of others.
    ///
    /// # Errors
    /// Why the guest could not join; nothing has changed then. If a reservation does not fit, the error has what
    /// would, and when more is free.
    pub fn join_process(
        &self,
        joined: JoinedGuest,
        request: &JoinRequest,
        (process, lead): (ForeignProcess, Ns),
        report: Arc<dyn ProcessReport>,
    ) -> Result<GuestNumber, JoinError> {
        let pool = &self.pool;
        let number = pool.foreign.new_number();
        let vcpus = joined.vcpus.len();
        let record = GuestRecord::of_process(number as usize, request.name.clone(), vcpus as u32);
        record.report_restarts(request.restarts);
        let record = Arc::new(record);
        report_hints(&record, &request.hints);
        let requests = requests(&joined, request.weight, pool.host_cpus());
        let refused = |kind| JoinError {
            guest: request.name.clone(),
            kind,
        };
        let InPolicy { ids, .. } =
            policy_join::admit_later(pool, &record, &requests, 0).map_err(refused)?;
        if lead > 0 {
            let owe = |state: &mut PoolState, _: Ns| {
                ids.vcpus()
                    .iter()
                    .for_each(|&vcpu| state.sched.owe(vcpu, lead));
            };
            pool.change(owe);
        }
        let guest = Joining::new(
            pool,
            number,
            record,
            (process, report),
            (joined, request),
            &ids,
        );
        guest.begin(pool, number, &ids).map_err(refused)?;
        Ok(number)
    }

    /// The process of guest `number` reports another source of the guest's hints.
    pub fn hints_reported(&self, number: GuestNumber, source: &str) {
        if let Some(ways) = self.pool.foreign.get(number) {
            report_hints(ways.guest.record(), source);
        }
    }

    /// The process of guest `number` reports that the guest has ended and is to start again there. All of its vCPUs
    /// that are idle run once, so that their threads release them.
    pub fn restarting(&self, number: GuestNumber) {
        let Some(ways) = self.pool.foreign.get(number) else {
            return;
        };
        let record = ways.guest.record();
        self.pool.change(|state, now| state.wake_idle(record, now));
    }

    /// The process of guest `number` reports that the guest has started again, `restarts` times so far.
    pub fn restarted(&self, number: GuestNumber, restarts: u32) {
        if let Some(ways) = self.pool.foreign.get(number) {
            ways.guest.record().report_restarts(restarts);
        }
    }

    /// Shows the process of guest `number`, or those of all guests, that the pool works. To be called about once a
    /// second for all, once it has been called: a process that then sees no change for some seconds takes the pool for
    /// hung, and leaves it.
    pub fn beat(&self, number: Option<GuestNumber>) {
        let ways = match number {
            Some(number) => self.pool.foreign.get(number).into_iter().collect(),
            None => self.pool.foreign.all(),
        };
        ways.iter().for_each(|ways| ways.guest.beat());
    }

    /// The wake file of guest `number` was written: vCPUs of the guest that sleep may have woken. Returns how many
    /// have.
    pub fn wake_reported(&self, number: GuestNumber) -> usize {
        let Some(ways) = self.pool.foreign.get(number) else {
            return 0;
        };
        let woken = ways.sleeps.iter().filter(|sleep| sleep.check_woken());
        woken.count()
    }

    /// The control socket of guest `number` has closed, or its process has reported that the guest has ended as in
    /// `ended`, and is not needed any more. Takes the guest out of the pool, if it is still there, and returns the
    /// numbers of its vCPUs. Afterwards no executor waits for them, and the guest's name is free. An executor that
    /// waits at the time of the call returns at once. To be called once for each guest that has joined.
    ///
    /// # Errors
    /// If the guest has been taken out before, or the pool has stopped.
    pub fn process_gone(
        &self,
        number: GuestNumber,
        ended: Option<GuestEnded>,
    ) -> Result<GuestAccount, GuestCallError> {
        let Some(ways) = self.pool.foreign.remove(number) else {
            return Err(GuestCallError::NoGuest(number.to_string()));
        };
        let record = ways.guest.record();
        record.end(match ended {
            Some(GuestEnded { ok, text }) => GuestEnd::Reported { ok, text },
            None => GuestEnd::ProcessLost("it has ended".into()),
        });
        ways.guest.hang_up();
        let account = self.leave(GuestKey::Record(record));
        ways.sleeps.iter().for_each(|sleep| sleep.forget());
        account
    }
}

/// Records the `source` of hints that a process reports. Another version's words change nothing.
fn report_hints(record: &GuestRecord, source: &str) {
    if let Some(source) = HintsInForce::from_text(source) {
        record.report_hints(source);
    }
}

/// What the policy is to admit for each vCPU.
fn requests(joined: &JoinedGuest, weight: u32, host_cpus: &[usize]) -> Vec<Request> {
    let shares = joined.vcpus.iter().map(|vcpu| &vcpu.share);
    let request = shares.map(|share| {
        let own = share.host_cpus.as_deref();
        (
            share.params(weight),
            own.map(|own| admission::in_pool(own, host_cpus)),
        )
    });
    request.collect()
}

/// A guest that the policy has admitted, and whose vCPUs are not in the pool yet.
struct Joining {
    ways: ForeignWays,
    vcpus: Vec<OwnedVcpu>,
    membership: ForeignMembership,
    is_paused: bool,
}

impl Joining {
    fn new(
        pool: &Arc<Pool>,
        number: GuestNumber,
        record: Arc<GuestRecord>,
        (process, report): (ForeignProcess, Arc<dyn ProcessReport>),
        (joined, request): (JoinedGuest, &JoinRequest),
        ids: &PolicyIds,
    ) -> Self {
        let JoinedGuest { link, vcpus } = joined;
        let tids = request.vcpus.iter().map(|vcpu| vcpu.tid);
        let vcpus = vcpus.into_iter().zip(tids);
        let vcpus: Vec<_> = vcpus.map(|(vcpu, tid)| VcpuWays::new(vcpu, tid)).collect();
        let clocks: Vec<_> = vcpus.iter().map(|vcpu| Arc::clone(&vcpu.clock)).collect();
        let guest = ForeignGuest::new(number, record, process, link, &clocks, report);
        let guest = Arc::new(guest);
        let mut sleeps: Vec<Arc<dyn ForeignSleep>> = Vec::with_capacity(vcpus.len());
        let mut owned = Vec::with_capacity(vcpus.len());
        for ((index, &id), ways) in (0..).zip(ids.vcpus().iter()).zip(vcpus) {
            let sleep = ForeignSlot::new(&guest, &ways.kick, Arc::downgrade(pool));
            let sleep: Arc<dyn ForeignSleep> = Arc::new(sleep);
            sleeps.push(Arc::clone(&sleep));
            let own = ForeignVcpu::new(
                (index, id),
                ids.clone(),
                ways,
                Arc::clone(&guest),
                sleep,
                pool.settings.foreign_priority,
            );
            owned.push(OwnedVcpu::Foreign(Box::new(own)));
        }
        Self {
            vcpus: owned,
            membership: ForeignMembership(sleeps.clone()),
            ways: ForeignWays { guest, sleeps },
            is_paused: request.is_paused,
        }
    }

    /// Puts the vCPUs into the pool, and commands them to sleep. The guest gets this `number`.
    fn begin(
        self,
        pool: &Arc<Pool>,
        number: GuestNumber,
        ids: &PolicyIds,
    ) -> Result<(), JoinErrorKind> {
        let Self {
            ways,
            vcpus,
            membership,
            is_paused,
        } = self;
        let record = Arc::clone(ways.guest.record());
        let threads: GuestThreads = vec![Box::new(membership)];
        // Before its vCPUs run, because one that has halted may wake at once.
        pool.foreign.add(number, ways);
        // One critical section: once the guest has been placed it may leave, and its ids be those of another.
        let placed = pool.change(|state, now| {
            if state.is_stopping() {
                return Err((vcpus, threads));
            }
            state.place(ids.guest(), vcpus, threads);
            if is_paused {
                state.pause(ids.guest(), now);
            }
            Ok(state.begin_elsewhere(ids.guest()))
        });
        match placed {
            Ok(to_sleep) => {
                let of_guest = Arc::downgrade(pool);
                record.on_end(move |record, _| {
                    if let Some(pool) = of_guest.upgrade() {
                        pool.remove_guest(record);
                    }
                });
                pool.let_sleep(to_sleep);
                Ok(())
            }
            Err(dropped) => {
                drop(dropped);
                pool.foreign.remove(number);
                policy_join::undo(pool, ids);
                Err(JoinErrorKind::Stopped)
            }
        }
    }
}

/// Brings the vCPUs of a guest of another process that sleep back to the pool when this is dropped, because the guest
/// leaves or the pool ends.
struct ForeignMembership(Vec<Arc<dyn ForeignSleep>>);

impl Drop for ForeignMembership {
    fn drop(&mut self) {
        self.0.iter().for_each(|sleep| sleep.close());
    }
}
