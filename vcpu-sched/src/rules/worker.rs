//! WorkerTable: threads that work for a guest beside its vCPUs, such as those of its devices.
//!
//! The host's scheduler runs them, but the policy decides when, where and on which budget, as it does for
//! a vCPU. Before it works, a worker asks for a *grant*: a host CPU and a short time, paid by a claim of
//! its guest.
//!
//! 1. A claim can pay that has something left: budget, or a place in the fair order. The guest's claims
//!    take turns.
//! 2. The grant is for a CPU that this claim could have: one that is idle, one on which a claim of the
//!    same guest pays, or one where what pays is less urgent. (That one goes on beside the worker; the
//!    two share the CPU as the host's scheduler sees fit.) One worker has a grant on a CPU at a time; one
//!    that has had its grant for long, perhaps because it sleeps in a system call, is no longer counted.
//! 3. Otherwise it waits, first come first served, and each decision looks whether it may go on.
//! 4. When something more urgent takes the CPU, the worker is asked to stop, which it does between two
//!    pieces of its work.
//! 5. What it has used is charged ([`Scheduler::charge_elsewhere`]) when it stops, at most a grant and a
//!    piece of work later than the vCPU would have been stopped.
//!
//! So the devices of a guest take no more CPU time than its claims have, and never take it from a claim
//! that is more urgent than these.

use crate::classes::cbs::Woken;
use crate::classes::rank::{Rank, more_urgent};
use crate::events::Events;
use crate::ids::{CpuId, GuestId, Ns, VcpuId, WorkerId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, SchedClass};
use crate::state::worker_table::{Grant, State, Worker, WorkerOrder};

/// CPU time of a grant, ns, unless the budget that pays has less left: an exit and an entry are a
/// small part of it, and it is a small part of a slice.
const GRANT_NS: Ns = 250_000;
/// A grant that is older, ns, does not keep other workers from its CPU.
const OLD_NS: Ns = 1_000_000;
/// How many waiting workers, and how many claims for each, are looked at for one decision.
const LOOKS: usize = 8;

impl<E: Events> Scheduler<E> {
    /// Adds a worker of `guest`, which has nothing to do yet.
    ///
    /// # Panics
    /// If `guest` was not made by [`Scheduler::add_guest`] of this pool.
    pub fn add_worker(&mut self, guest: GuestId) -> WorkerId {
        assert!(guest.index() < self.guests.len(), "a guest of this pool");
        let workers = &mut self.workers;
        workers.all.push(Worker {
            guest,
            state: State::Idle,
            last_cpu: None,
        });
        let count = workers.all.len();
        workers.waiting.reserve(count);
        workers.orders.reserve(2 * count);
        WorkerId(count as u32 - 1)
    }

    /// `worker` has something to do. It may begin when [`Scheduler::take_worker_orders`] says so, which
    /// may be at once. Does nothing for one that waits or works already.
    pub fn worker_ready(&mut self, worker: WorkerId, now: Ns) {
        let Some(known) = self.workers.all.get_mut(worker.index()) else {
            return;
        };
        if known.state != State::Idle {
            return;
        }
        known.state = State::Waits;
        self.workers.waiting.push_back(worker);
        if self.grant_anywhere(worker, now) {
            return;
        }
        // It competes from now on: a vCPU that runs alone gets a slice, at whose end the worker is
        // looked at.
        for cpu in self.unsliced.iter() {
            self.kick(cpu, now);
        }
    }

    /// `worker` has stopped, or gives up waiting; it has used `spent` ns of CPU time since it stopped
    /// last.
    pub fn worker_stopped(&mut self, worker: WorkerId, spent: Ns, now: Ns) {
        let Some(known) = self.workers.all.get_mut(worker.index()) else {
            return;
        };
        let guest = known.guest;
        match std::mem::replace(&mut known.state, State::Idle) {
            State::Works { cpu, payer } => {
                let here = &mut self.cpus[cpu.index()].worker;
                if here.is_some_and(|(on, _)| on == worker) {
                    *here = None;
                }
                self.charge_worker(payer, spent, now);
                self.grant_on(cpu, now);
            }
            // It has worked without a grant, which is not for nothing.
            State::Waits | State::Idle => {
                self.workers.waiting.retain(|&waits| waits != worker);
                if let Some(&payer) = self.guests[guest.index()].vcpus.first() {
                    self.charge_worker(payer, spent, now);
                }
            }
        }
    }

    fn charge_worker(&mut self, payer: VcpuId, spent: Ns, now: Ns) {
        self.vcpus[payer.index()].counters.devices_ns += spent;
        self.charge_elsewhere(payer, spent, now);
    }

    /// What workers are to be told because of what happened since the last call.
    pub fn take_worker_orders(&mut self) -> std::vec::Drain<'_, WorkerOrder> {
        self.workers.orders.drain(..)
    }

    /// After `cpu` has picked: stops the worker there if it may not go on, and looks for one that may
    /// begin.
    pub(crate) fn serve_workers(&mut self, cpu: CpuId, now: Ns) {
        if let Some((worker, _)) = self.cpus[cpu.index()].worker {
            let known = &self.workers.all[worker.index()];
            if let State::Works { payer, .. } = known.state
                && !self.may_pay_on(payer, cpu, now)
            {
                self.cpus[cpu.index()].worker = None;
                self.workers.orders.push(WorkerOrder::Stop(worker));
            }
        }
        if !self.workers.any_waits() {
            return;
        }
        self.grant_on(cpu, now);
        for _ in 0..self.workers.to_look_at.min(LOOKS) {
            self.workers.to_look_at -= 1;
            let Some(worker) = self.workers.waiting.front().copied() else {
                self.workers.to_look_at = 0;
                return;
            };
            if !self.grant_anywhere(worker, now) {
                self.workers.waiting.rotate_left(1);
            }
        }
    }

    /// Looks among the waiting workers for one that may work on `cpu`.
    fn grant_on(&mut self, cpu: CpuId, now: Ns) {
        for _ in 0..self.workers.waiting.len().min(LOOKS) {
            if !self.has_room(cpu, now) {
                return;
            }
            let Some(worker) = self.workers.waiting.front().copied() else {
                return;
            };
            let guest = self.workers.all[worker.index()].guest;
            let payer = self
                .payers(guest)
                .find(|&payer| self.may_pay_on(payer, cpu, now));
            match payer {
                Some(payer) => self.grant(worker, payer, cpu, now),
                None => self.give_way(worker, guest),
            }
        }
    }

    /// Finds a CPU for `worker`, which waits. False: there is none now.
    fn grant_anywhere(&mut self, worker: WorkerId, now: Ns) -> bool {
        let Worker {
            guest, last_cpu, ..
        } = self.workers.all[worker.index()];
        let stays = last_cpu
            .filter(|&cpu| self.has_room(cpu, now))
            .and_then(|cpu| {
                let mut payers = self.payers(guest);
                Some((payers.find(|&payer| self.may_pay_on(payer, cpu, now))?, cpu))
            });
        let found = stays.or_else(|| {
            self.payers(guest)
                .find_map(|payer| Some((payer, self.cpu_for(payer, now)?)))
        });
        match found {
            Some((payer, cpu)) => self.grant(worker, payer, cpu, now),
            None => self.next_payer(guest),
        }
        found.is_some()
    }

    /// The claims of `guest` that are asked whether they can pay, in their order.
    fn payers(&self, guest: GuestId) -> impl Iterator<Item = VcpuId> + '_ {
        let guest = &self.guests[guest.index()];
        let (before, after) = guest.vcpus.split_at(guest.next_payer);
        after.iter().chain(before).copied().take(LOOKS)
    }

    /// None of the claims that were asked can pay: others are asked the next time.
    fn next_payer(&mut self, guest: GuestId) {
        let guest = &mut self.guests[guest.index()];
        guest.next_payer = (guest.next_payer + LOOKS) % guest.vcpus.len().max(1);
    }

    fn give_way(&mut self, worker: WorkerId, guest: GuestId) {
        self.next_payer(guest);
        debug_assert_eq!(self.workers.waiting.front(), Some(&worker));
        self.workers.waiting.rotate_left(1);
    }

    /// A CPU on which `payer` can pay for a worker: an idle one before one where others run.
    fn cpu_for(&self, payer: VcpuId, now: Ns) -> Option<CpuId> {
        let ec = &self.vcpus[payer.index()].ec;
        let fits = |&cpu: &CpuId| self.has_room(cpu, now) && self.may_pay_on(payer, cpu, now);
        let allowed = self.domains[ec.domain].cpus;
        let idle = self.idle.and(allowed);
        let last = Some(ec.last_cpu).filter(|&last| idle.contains(last));
        let least = self.least_urgent(allowed).map(|(_, cpu)| cpu);
        let idle = last.into_iter().chain(idle.iter());
        let own = match self.vcpus[payer.index()].sc.state {
            ScState::OnCpu(cpu) => Some(cpu),
            _ => None,
        };
        idle.chain(least).chain(own).find(fits)
    }

    /// Whether `cpu` is there, and no worker has a grant for it that still counts.
    fn has_room(&self, cpu: CpuId, now: Ns) -> bool {
        let granted = self.cpus[cpu.index()].worker;
        self.present.contains(cpu)
            && granted.is_none_or(|(_, since)| now.saturating_sub(since) > OLD_NS)
    }

    fn grant(&mut self, worker: WorkerId, payer: VcpuId, cpu: CpuId, now: Ns) {
        let left = self.left(payer, now);
        let limit = left.map_or(0, |(_, left)| left.min(GRANT_NS));
        if let Some((Rank::Fair(tag, _), _)) = left {
            // As when a vCPU begins a slice there.
            self.pass_virtual_time(cpu, tag);
        }
        self.workers.waiting.retain(|&waits| waits != worker);
        let known = &mut self.workers.all[worker.index()];
        (known.state, known.last_cpu) = (State::Works { cpu, payer }, Some(cpu));
        self.cpus[cpu.index()].worker = Some((worker, now));
        let guest = &mut self.guests[self.vcpus[payer.index()].guest.index()];
        let place = guest.vcpus.iter().position(|&vcpu| vcpu == payer);
        guest.next_payer = place.map_or(0, |place| (place + 1) % guest.vcpus.len());
        self.workers.orders.push(WorkerOrder::Work(Grant {
            worker,
            cpu,
            payer,
            limit,
        }));
    }

    /// Rules 1 and 2, but for other workers.
    fn may_pay_on(&self, payer: VcpuId, cpu: CpuId, now: Ns) -> bool {
        let v = &self.vcpus[payer.index()];
        if !self.may_run_on(payer, cpu) {
            return false;
        }
        let Some((rank, _)) = self.left(payer, now) else {
            return false;
        };
        let Some(running) = self.cpus[cpu.index()].running else {
            return true;
        };
        let donor = &self.vcpus[running.donor.index()];
        if donor.guest == v.guest {
            return true;
        }
        match (rank, &donor.sc.class) {
            (Rank::Fair(tag, _), SchedClass::Fair(fair)) => {
                let sharers = self.guests[donor.guest.index()].runnable;
                let ran = now.saturating_sub(running.since);
                tag <= fair.tag_now(ran, sharers)
            }
            _ => more_urgent(rank, donor.sc.rank()),
        }
    }

    /// The rank of a claim if it competed now, and what it has left, ns; `None`: nothing.
    pub(crate) fn left(&self, claim: VcpuId, now: Ns) -> Option<(Rank, Ns)> {
        let v = &self.vcpus[claim.index()];
        if v.ec.state == ExecState::Gone {
            return None;
        }
        let mut sc = v.sc.clone();
        match &mut sc.class {
            SchedClass::Deadline(server) => {
                match sc.state {
                    ScState::Throttled => return None,
                    ScState::OnCpu(cpu) => {
                        let running = self.cpus[cpu.index()].running;
                        let since = running.map_or(now, |running| running.since);
                        server.owe(now.saturating_sub(since));
                    }
                    ScState::Off => {
                        if let Woken::ThrottledUntil(_) = server.wake(now) {
                            return None;
                        }
                    }
                    _ => {}
                }
                let left = u64::try_from(server.budget())
                    .ok()
                    .filter(|&left| left > 0)?;
                Some((sc.rank(), left))
            }
            SchedClass::Fair(fair) => {
                if sc.state == ScState::Off {
                    let sharers = self.guests[v.guest.index()].runnable;
                    let virtual_time = self.domains[v.ec.domain].virtual_time;
                    fair.wake(virtual_time, self.config.slice_ns, sharers);
                }
                Some((sc.rank(), Ns::MAX))
            }
        }
    }
}
