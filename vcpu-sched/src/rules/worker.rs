//! Workers: threads that work for a guest beside its vCPUs, such as those of its devices.
//!
//! The host's scheduler runs them, but the policy decides when, where and on which budget, as it does for
//! a vCPU. Before it works, a worker needs a *grant*: a host CPU and a short time, charged to a vCPU of its
//! guest, the donor.
//!
//! 1. A vCPU can be the donor whose scheduling context has something left: budget, or a place in the fair
//!    order. The guest's vCPUs take turns.
//! 2. The grant is for a CPU that the donor could have: one that is idle, one whose present donor is of the
//!    same guest, or one whose present donor is less urgent. (What runs there goes on beside the worker; the
//!    two share the CPU as the host's scheduler sees fit.) One worker has a grant on a CPU at a time. A
//!    worker that has had its grant for long, perhaps because it sleeps in a system call, no longer counts.
//! 3. Otherwise the worker waits, first come first served, and each decision checks whether it may begin.
//! 4. When something more urgent takes the CPU, the worker is ordered to stop, which it does between two
//!    pieces of its work.
//! 5. What it has used is charged ([`Scheduler::charge_elsewhere`]) when it stops, at most a grant and a
//!    piece of work later than the vCPU would have been stopped.
//!
//! So the devices of a guest take no more CPU time than its vCPUs have, and never take it from a vCPU that
//! is more urgent than these.

use crate::classes::rank::Rank;
use crate::events::Events;
use crate::ids::{CpuId, CpuTime, GuestId, Ns, VcpuId, WorkerId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::cpu_table::GrantOnCpu;
use crate::state::worker_table::{Grant, Worker, WorkerOrder, WorkerState};

/// CPU time of a grant, ns, unless the donor has less left: an exit and an entry are a small part of it,
/// and it is a small part of a slice.
const GRANT_NS: Ns = 250_000;
/// A grant that is older, ns, does not keep other workers from its CPU.
const OLD_GRANT_NS: Ns = 1_000_000;
/// How many waiting workers, and how many donors for each, one decision tries.
const MAX_TRIES: usize = 8;

impl<E: Events> Scheduler<E> {
    /// Adds a worker of `guest`, which has nothing to do yet.
    ///
    /// # Panics
    /// If `guest` was not made by [`Scheduler::add_guest`] of this pool, or has been removed.
    pub fn add_worker(&mut self, guest: GuestId) -> WorkerId {
        let known = self.guests.get(guest);
        assert!(known.is_some_and(|g| !g.ending), "a guest of this pool");
        self.workers.add(guest)
    }

    /// `worker` has something to do, and requests a grant. It may begin when
    /// [`Scheduler::take_worker_orders`] returns the order, which may be at once. Does nothing for a worker
    /// that waits or works already.
    pub fn worker_ready(&mut self, worker: WorkerId, now: Ns) {
        let Some(row) = self.workers.rows.get_mut(worker) else {
            return;
        };
        if row.state != WorkerState::Idle {
            return;
        }
        let guest = &self.guests[row.guest];
        if guest.ending {
            return;
        }
        row.state = WorkerState::Waiting;
        if guest.paused {
            return;
        }
        self.workers.waiting.push_back(worker);
        if !self.grant_anywhere(worker, now) {
            // It competes from now on. A vCPU that runs alone gets a slice, at whose end the worker is tried.
            self.kick_unsliced(self.cpus.all(), now);
        }
    }

    /// `worker` has stopped, or gives up waiting. It has used `spent` since it last stopped.
    pub fn worker_stopped(&mut self, worker: WorkerId, spent: CpuTime, now: Ns) {
        let Some(row) = self.workers.rows.get_mut(worker) else {
            return;
        };
        let guest = row.guest;
        match std::mem::replace(&mut row.state, WorkerState::Idle) {
            WorkerState::Working { cpu, donor } => {
                let grant = &mut self.cpus.row_mut(cpu).grant;
                if grant.is_some_and(|grant| grant.worker == worker) {
                    *grant = None;
                }
                self.charge_worker(donor, spent, now);
                self.grant_on(cpu, now);
            }
            // It has worked without a grant, which is charged too.
            WorkerState::Waiting | WorkerState::Idle => {
                self.workers.waiting.retain(|&waits| waits != worker);
                if let Some(&donor) = self.guests[guest].vcpus.first() {
                    self.charge_worker(donor, spent, now);
                }
            }
        }
    }

    /// The workers of `guest`, which is paused or is being removed, stop. Those that wait do not compete.
    pub(crate) fn stop_workers(&mut self, guest: GuestId) {
        let workers: Vec<_> = self.workers.of(guest).collect();
        for worker in workers {
            if let WorkerState::Working { cpu, .. } = self.workers.rows[worker].state {
                let grant = &mut self.cpus.row_mut(cpu).grant;
                if grant.is_some_and(|grant| grant.worker == worker) {
                    *grant = None;
                }
                self.workers.orders.push(WorkerOrder::Stop(worker));
            }
            self.workers.waiting.retain(|&waits| waits != worker);
        }
    }

    /// The workers of `guest` that wait compete again.
    pub(crate) fn resume_workers(&mut self, guest: GuestId, now: Ns) {
        let workers: Vec<_> = self.workers.of(guest).collect();
        for worker in workers {
            let row = &mut self.workers.rows[worker];
            if row.state == WorkerState::Waiting {
                row.state = WorkerState::Idle;
                self.worker_ready(worker, now);
            }
        }
    }

    fn charge_worker(&mut self, donor: VcpuId, spent: CpuTime, now: Ns) {
        self.counting.counters_mut(donor).devices_ns += spent.0;
        self.charge_elsewhere(donor, spent, now);
    }

    /// The orders for workers since the last call.
    pub fn take_worker_orders(&mut self) -> std::vec::Drain<'_, WorkerOrder> {
        self.workers.orders.drain(..)
    }

    /// `cpu` has picked: the worker there stops if it may not go on, and one that waits may begin.
    pub(crate) fn serve_workers(&mut self, cpu: CpuId, now: Ns) {
        self.revoke_grant(cpu, now);
        if !self.workers.any_waits() {
            return;
        }
        self.grant_on(cpu, now);
        for _ in 0..self.workers.to_retry.min(MAX_TRIES) {
            self.workers.to_retry -= 1;
            let Some(worker) = self.workers.waiting.front().copied() else {
                self.workers.to_retry = 0;
                return;
            };
            if !self.grant_anywhere(worker, now) {
                self.workers.waiting.rotate_left(1);
            }
        }
    }

    /// Revokes the grant on `cpu` if the worker may not go on there.
    fn revoke_grant(&mut self, cpu: CpuId, now: Ns) {
        if let Some(GrantOnCpu { worker, .. }) = self.cpus[cpu].grant
            && let WorkerState::Working { donor, .. } = self.workers.rows[worker].state
            && !self.may_donate_on(donor, cpu, now)
        {
            self.cpus.row_mut(cpu).grant = None;
            self.workers.orders.push(WorkerOrder::Stop(worker));
        }
    }

    /// Finds one among the waiting workers that may work on `cpu`.
    fn grant_on(&mut self, cpu: CpuId, now: Ns) {
        for _ in 0..self.workers.waiting.len().min(MAX_TRIES) {
            if !self.has_room(cpu, now) {
                return;
            }
            let Some(worker) = self.workers.waiting.front().copied() else {
                return;
            };
            let guest = self.workers.rows[worker].guest;
            let mut donors = self.donors(guest);
            match donors.find(|&donor| self.may_donate_on(donor, cpu, now)) {
                Some(donor) => {
                    drop(donors);
                    self.grant(worker, donor, cpu, now);
                }
                None => {
                    drop(donors);
                    self.try_other_donors(guest);
                    self.workers.waiting.rotate_left(1);
                }
            }
        }
    }

    /// Finds a CPU for `worker`, which waits. False: there is none now.
    fn grant_anywhere(&mut self, worker: WorkerId, now: Ns) -> bool {
        let Worker {
            guest, last_cpu, ..
        } = self.workers.rows[worker];
        let on_last = || {
            let cpu = last_cpu.filter(|&cpu| self.has_room(cpu, now))?;
            let mut donors = self.donors(guest);
            Some((
                donors.find(|&donor| self.may_donate_on(donor, cpu, now))?,
                cpu,
            ))
        };
        let anywhere = || {
            self.donors(guest)
                .find_map(|donor| Some((donor, self.cpu_for_worker(donor, now)?)))
        };
        let found = on_last().or_else(anywhere);
        match found {
            Some((donor, cpu)) => self.grant(worker, donor, cpu, now),
            None => self.try_other_donors(guest),
        }
        found.is_some()
    }

    /// The vCPUs of `guest` that are tried as donors, in their order.
    fn donors(&self, guest: GuestId) -> impl Iterator<Item = VcpuId> + '_ {
        let guest = &self.guests[guest];
        let (before, after) = guest.vcpus.split_at(guest.next_donor);
        after.iter().chain(before).copied().take(MAX_TRIES)
    }

    /// None of the vCPUs that were tried can be the donor: others are tried the next time.
    fn try_other_donors(&mut self, guest: GuestId) {
        let guest = &mut self.guests[guest];
        guest.next_donor = (guest.next_donor + MAX_TRIES) % guest.vcpus.len().max(1);
    }

    /// A CPU on which `donor` can be charged for a worker: an idle one before one where others run.
    fn cpu_for_worker(&self, donor: VcpuId, now: Ns) -> Option<CpuId> {
        let v = &self.vcpus[donor];
        let fits = |&cpu: &CpuId| self.has_room(cpu, now) && self.may_donate_on(donor, cpu, now);
        let allowed = self.domains[v.ec.domain].cpus;
        let idle = self.cpus.idle().and(allowed);
        let last = Some(v.ec.last_cpu).filter(|&last| idle.contains(last));
        let least_urgent = self.cpus.least_urgent(allowed).map(|(_, cpu)| cpu);
        let own = match v.sc.state {
            ScState::OnCpu(cpu) => Some(cpu),
            _ => None,
        };
        let idle = last.into_iter().chain(idle.iter());
        idle.chain(least_urgent).chain(own).find(fits)
    }

    /// Whether `cpu` is online, and no worker has a grant for it that still counts.
    fn has_room(&self, cpu: CpuId, now: Ns) -> bool {
        let old = |grant: GrantOnCpu| now.saturating_sub(grant.since) > OLD_GRANT_NS;
        self.cpus.online().contains(cpu) && self.cpus[cpu].grant.is_none_or(old)
    }

    fn grant(&mut self, worker: WorkerId, donor: VcpuId, cpu: CpuId, now: Ns) {
        let available = self.available(donor, now);
        let limit = available.map_or(0, |(_, left)| left.min(GRANT_NS));
        if let Some(tag) = available.and_then(|(rank, _)| rank.tag()) {
            // As when a vCPU begins a slice there.
            self.advance_virtual_time(cpu, tag);
        }
        self.workers.waiting.retain(|&waits| waits != worker);
        let row = &mut self.workers.rows[worker];
        (row.state, row.last_cpu) = (WorkerState::Working { cpu, donor }, Some(cpu));
        self.cpus.row_mut(cpu).grant = Some(GrantOnCpu { worker, since: now });
        let guest = &mut self.guests[self.vcpus[donor].guest];
        let place = guest.vcpus.iter().position(|&vcpu| vcpu == donor);
        guest.next_donor = place.map_or(0, |place| (place + 1) % guest.vcpus.len());
        self.workers.orders.push(WorkerOrder::Work(Grant {
            worker,
            cpu,
            donor,
            limit,
        }));
    }

    /// Rules 1 and 2, except for what other workers have.
    fn may_donate_on(&self, donor: VcpuId, cpu: CpuId, now: Ns) -> bool {
        if !self.may_run_on(donor, cpu) {
            return false;
        }
        let Some((rank, _)) = self.available(donor, now) else {
            return false;
        };
        let Some(running) = self.cpus.running(cpu) else {
            return true;
        };
        if self.same_guest(donor, running.donor) {
            return true;
        }
        let present = &self.vcpus[running.donor].sc;
        let sharers = self.sharers(running.donor);
        present
            .class
            .shares_with(rank, present.fifo_seq, running.ran(now), sharers)
    }

    /// The rank that the scheduling context of `vcpu` would have if it competed now, and the CPU time that it
    /// has left, ns; `None`: nothing.
    pub(crate) fn available(&self, vcpu: VcpuId, now: Ns) -> Option<(Rank, Ns)> {
        let v = &self.vcpus[vcpu];
        if v.ec.state == ExecState::Gone || self.is_paused(vcpu) {
            return None;
        }
        let (activity, inputs) = (self.activity(vcpu, now), self.fair_inputs(vcpu));
        v.sc.class.available(v.sc.fifo_seq, activity, now, &inputs)
    }
}
