//! What the pool's lock protects: the policy, and where its vCPUs are. Both change together.

use std::sync::Arc;

use baton_machine::GuestRecord;
use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet, CpuTime, GuestId, Hints, Ns, StopReason, VcpuId, WorkerId};

use super::after_unlock::AfterUnlock;
use super::assignment::Assignment;
use super::cpu_grant::GrantInbox;
use super::guest_table::GuestTable;
use super::owned_vcpu::OwnedVcpu;
use super::pool_guest::{GuestThreads, Membership, PoolGuest};
use super::probes::PoolPolicy;
use super::vcpu_places::{NotInPool, VcpuPlaces, VcpuRow};
use super::worker_table::WorkerTable;
use crate::report::VcpuAccount;

/// The policy and the vCPUs of a pool.
pub(crate) struct PoolState {
    pub(crate) sched: PoolPolicy,
    places: VcpuPlaces,
    pub(super) guests: GuestTable,
    pub(super) workers: WorkerTable,
    /// vCPUs that the policy picked or woke while they slept in `KVM_RUN`: their sleep is to end.
    interrupts: Vec<VcpuId>,
    /// What the pool had of guests that have left, to be dropped.
    forgotten: Vec<Box<dyn Send>>,
    /// Something has changed for which a thread may wait.
    wakes_waiters: bool,
    is_stopping: bool,
}

impl PoolState {
    pub(crate) fn new(sched: PoolPolicy) -> Self {
        Self {
            sched,
            places: VcpuPlaces::default(),
            guests: GuestTable::default(),
            workers: WorkerTable::default(),
            interrupts: Vec::new(),
            forgotten: Vec::new(),
            wakes_waiters: false,
            is_stopping: false,
        }
    }

    /// Whether the executors are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// From here on nothing is picked. Returns where orders for device threads arrive.
    pub(crate) fn stop(&mut self) -> Vec<Arc<GrantInbox>> {
        self.is_stopping = true;
        self.wakes_waiters = true;
        self.workers.inboxes()
    }

    /// Collects what is to be done once the lock is free.
    pub(crate) fn after_unlock(&mut self) -> AfterUnlock {
        let orders = self.sched.take_worker_orders().into_iter();
        let mut after = AfterUnlock {
            kicks: self.sched.take_kicks(),
            worker_orders: orders
                .filter_map(|order| self.workers.address(order))
                .collect(),
            ended: self.places.take_ended(),
            forgotten: std::mem::take(&mut self.forgotten),
            wakes_waiters: std::mem::take(&mut self.wakes_waiters),
            ..AfterUnlock::default()
        };
        for id in std::mem::take(&mut self.interrupts) {
            self.places.interrupt_sleep(id, &mut after);
        }
        after
    }

    /// Has the policy decide what `cpu` runs, and takes that vCPU.
    pub(crate) fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Assignment> {
        if self.is_stopping {
            return None;
        }
        loop {
            let decision = self.sched.pick(cpu, now)?;
            let id = decision.curr;
            let reason = match self.places.take(id) {
                Ok(mut vcpu) => {
                    self.show_steal(&mut vcpu);
                    return Some(Assignment::new(vcpu, decision));
                }
                // It sleeps in KVM_RUN, though the policy counts it as awake. For the policy it halts
                // again, until its sleep has ended.
                Err(NotInPool::Asleep) => {
                    self.interrupts.push(id);
                    StopReason::Halted(None)
                }
                Err(NotInPool::Gone) => StopReason::Ended,
            };
            self.sched
                .stop(cpu, reason, Hints::default(), CpuTime::ZERO, now);
        }
    }

    /// Counts a doorbell of guest `id` that changed nothing. True, once, when that is a storm.
    pub(crate) fn count_needless_doorbell(&mut self, id: GuestId, now: Ns) -> bool {
        let guest = self.guests.get_mut(id);
        guest.is_some_and(|guest| guest.storm.count(now))
    }

    /// Defers the preemption of what runs on `cpu`: until when, ns, if at all.
    pub(crate) fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        if self.is_stopping {
            return None;
        }
        self.sched.defer(cpu, hints, now)
    }

    /// Puts `vcpu` back, which an executor has stopped.
    pub(crate) fn put_back(&mut self, vcpu: OwnedVcpu) {
        let guest = vcpu.ids().guest();
        self.places.put_back(vcpu);
        self.changed(guest);
    }

    /// `vcpu`, which an executor has stopped, is to sleep in `KVM_RUN`. `None`: its guest has ended.
    pub(crate) fn send_to_sleep(&mut self, vcpu: OwnedVcpu) -> Option<OwnedVcpu> {
        self.changed(vcpu.ids().guest());
        self.places.send_to_sleep(vcpu)
    }

    /// `id`, which was to sleep on a halt thread, sleeps with the executor of `cpu` instead.
    pub(crate) fn sleep_in_place(&mut self, id: VcpuId, cpu: CpuId) {
        self.places.sleep_in_place(id, cpu);
    }

    /// The sleep in place of `vcpu` has ended, by a wake if it has `woken`. Returned if it is to sleep
    /// on.
    pub(crate) fn end_sleep_in_place(
        &mut self,
        vcpu: OwnedVcpu,
        woken: bool,
        now: Ns,
    ) -> Option<OwnedVcpu> {
        if woken || self.is_stopping || self.places.is_interrupted(vcpu.id()) {
            self.end_sleep(vcpu, now);
            return None;
        }
        self.places.sleep_on_halt_thread(vcpu.id());
        Some(vcpu)
    }

    /// The sleep of `vcpu` is over.
    pub(crate) fn end_sleep(&mut self, vcpu: OwnedVcpu, now: Ns) {
        let id = vcpu.id();
        self.put_back(vcpu);
        self.sched.wake(id, now);
    }

    /// What runs on `cpu` wakes its sibling `target`.
    pub(crate) fn wake(&mut self, cpu: CpuId, target: VcpuId, now: Ns) -> AfterUnlock {
        // If `target` sleeps in KVM_RUN, that ends first, and the policy learns of the wake when the
        // vCPU is back. A throttled one sleeps on: the policy learns of the wake now, and `pick` ends
        // the sleep when the vCPU is to run.
        if self.places.is_asleep(target) && !self.sched.is_throttled(target) {
            self.interrupts.push(target);
        } else {
            self.sched.wake_by(cpu, target, now);
        }
        self.after_unlock()
    }

    /// The policy has admitted `guest`, whose vCPUs are not there yet.
    pub(crate) fn add(&mut self, guest: PoolGuest) {
        let id = guest.ids().guest();
        for &worker in &guest.workers {
            self.workers.add(worker, id);
        }
        self.guests.add(guest);
    }

    /// The device threads of a guest, by slot, and where their orders arrive.
    pub(crate) fn workers_of(&self, id: GuestId) -> Vec<(WorkerId, Arc<GrantInbox>)> {
        let workers = self.guests.get(id).map(|guest| guest.workers.iter());
        let workers = workers.into_iter().flatten();
        workers
            .filter_map(|&id| Some((id, self.workers.inbox(id)?)))
            .collect()
    }

    /// The vCPUs of a guest that has been added are there, with their `threads`.
    pub(crate) fn place(&mut self, guest: GuestId, vcpus: Vec<OwnedVcpu>, threads: GuestThreads) {
        vcpus.into_iter().for_each(|vcpu| self.places.add(vcpu));
        if let Some(guest) = self.guests.get_mut(guest) {
            guest.threads = threads;
            guest.membership = Membership::Joined;
        }
    }

    /// Wakes the vCPU that starts `guest`. Where vCPUs can sleep in `KVM_RUN`, takes those that wait to be
    /// started; where they cannot, each runs from time to time until it is found halted.
    pub(crate) fn begin(&mut self, guest: GuestId, can_sleep: bool, now: Ns) -> Vec<OwnedVcpu> {
        let Some(guest) = self.guests.get(guest) else {
            return Vec::new();
        };
        let ids = guest.ids().vcpus();
        let woken = if can_sleep { 1 } else { ids.len() };
        for &id in ids.iter().take(woken) {
            self.sched.wake(id, now);
        }
        match can_sleep {
            true => self.places.take_unstarted(ids),
            false => Vec::new(),
        }
    }

    /// The vCPUs of `guest`, whose threads are those of another process, are in the pool. Returns them, which are to be
    /// put to sleep: those with something to run wake at once. So no executor waits for a thread before that has
    /// answered a command.
    pub(crate) fn begin_elsewhere(&mut self, guest: GuestId) -> Vec<OwnedVcpu> {
        match self.guests.get(guest) {
            Some(guest) => self.places.take_all(guest.ids().vcpus()),
            None => Vec::new(),
        }
    }

    /// Pauses the guest `id`.
    pub(super) fn pause(&mut self, id: GuestId, now: Ns) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.is_paused = true;
            self.sched.pause(id, now);
        }
    }

    /// Wakes the vCPUs of the guest of `record` that are idle and do not sleep in `KVM_RUN`, if it is still in the pool.
    pub(super) fn wake_idle(&mut self, record: &GuestRecord, now: Ns) {
        let id = self.guests.of_record(record);
        let Some(guest) = id.and_then(|id| self.guests.get(id)) else {
            return;
        };
        for &id in guest.ids().vcpus().iter() {
            if !self.places.is_asleep(id) {
                self.sched.wake(id, now);
            }
        }
    }

    /// The thread that ran `vcpu` of `guest` for `cpu` has failed, and the vCPU is lost with it.
    pub(crate) fn lose(&mut self, cpu: CpuId, vcpu: VcpuId, guest: GuestId, ran: Ns) {
        self.places.lose(vcpu);
        let now = sys::monotonic_ns();
        self.sched
            .stop(cpu, StopReason::Ended, Hints::default(), CpuTime(ran), now);
        self.changed(guest);
    }

    /// Charges to `id` what other threads have used for its guest: that of the console, or those of its process.
    pub(crate) fn charge_rest(&mut self, id: VcpuId, used: Ns, now: Ns) {
        self.sched.charge_elsewhere(id, CpuTime(used), now);
    }

    /// The CPUs `present` of `all` can be used. Without any, the last one stays.
    pub(crate) fn set_present(&mut self, all: CpuSet, present: CpuSet) -> AfterUnlock {
        let now = sys::monotonic_ns();
        // First those that are back, so that one of them can be the last.
        for cpu in present.iter() {
            self.sched.cpu_online(cpu, now);
        }
        for cpu in all.minus(present).iter() {
            self.sched.cpu_offline(cpu, now);
        }
        self.after_unlock()
    }

    /// The device thread `id`, whose orders arrive in `inbox`, has something to do. Without effect if its guest
    /// has left.
    pub(crate) fn worker_ready(&mut self, id: WorkerId, inbox: &Arc<GrantInbox>, now: Ns) {
        if self.workers.guest(id, inbox).is_some() {
            self.sched.worker_ready(id, now);
        }
    }

    /// The device thread `id`, whose orders arrive in `inbox`, has stopped and used `spent`. Without effect if
    /// its guest has left, except that the policy's ids of the guest may be free now.
    pub(crate) fn worker_stopped(
        &mut self,
        id: WorkerId,
        inbox: &Arc<GrantInbox>,
        spent: CpuTime,
        now: Ns,
    ) {
        if let Some(guest) = self.workers.guest(id, inbox) {
            self.workers.stopped(id);
            self.sched.worker_stopped(id, spent, now);
            self.changed(guest);
            self.forget_if_free(guest, now);
        }
    }

    /// The guest of `record` has ended: its vCPUs leave the policy, wherever they are. Returns where orders for
    /// its device threads arrive.
    pub(crate) fn remove_guest(&mut self, record: &GuestRecord) -> Vec<Arc<GrantInbox>> {
        let now = sys::monotonic_ns();
        let Some(id) = self.guests.of_record(record) else {
            return Vec::new();
        };
        let guest = self.guests.get_mut(id);
        let Some(guest) = guest.and_then(|guest| guest.leave_policy().then_some(guest)) else {
            return Vec::new();
        };
        let vcpus = Arc::clone(guest.ids().vcpus());
        self.sched.remove_guest(id, now);
        for &vcpu in vcpus.iter() {
            self.sched.events_mut().gone(now, vcpu);
            self.places.end(vcpu);
            if self.places.is_asleep(vcpu) {
                self.interrupts.push(vcpu);
            }
        }
        self.changed(id);
        let workers = self.workers_of(id).into_iter();
        workers.map(|(_, inbox)| inbox).collect()
    }

    /// Whether the guest `id` has ended, and all its vCPUs have come back.
    pub(crate) fn is_back(&self, id: GuestId) -> bool {
        let guest = self.guests.get(id);
        guest.is_none_or(|guest| {
            let mut vcpus = guest.ids().vcpus().iter();
            vcpus.all(|&vcpu| self.places.has_ended(vcpu))
        })
    }

    /// The accounts of the guest's vCPUs at `end`, ns.
    pub(crate) fn accounts(&self, id: GuestId, end: Ns) -> Vec<VcpuAccount> {
        let Some(guest) = self.guests.get(id) else {
            return Vec::new();
        };
        let account = |&vcpu: &VcpuId| VcpuAccount {
            counters: self.sched.counters_at(vcpu, end),
            exits: self.places.exits(vcpu),
        };
        guest.ids().vcpus().iter().map(account).collect()
    }

    /// CPU time by which the guest `id` is ahead of others, ns: that of its vCPU that is ahead by most, for each of them
    /// competes with the weight that all share.
    pub(crate) fn lead(&self, id: GuestId) -> Ns {
        let guest = self.guests.get(id);
        let vcpus = guest.map(|guest| guest.ids().vcpus().iter());
        let leads = vcpus
            .into_iter()
            .flatten()
            .map(|&vcpu| self.sched.lead(vcpu));
        leads.max().unwrap_or(0)
    }

    /// The guest `id`, which has been removed and whose vCPUs are back, has left. The pool forgets it as soon
    /// as the policy permits that.
    pub(crate) fn leave(&mut self, id: GuestId, now: Ns) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.membership = Membership::Left;
        }
        self.forget_if_free(id, now);
    }

    /// Forgets the guest `id` if it has left and the policy has freed its ids. From then on they are those of
    /// others.
    pub(super) fn forget_if_free(&mut self, id: GuestId, now: Ns) {
        let guest = self.guests.get(id);
        let has_left = guest.is_some_and(|g| g.membership == Membership::Left && g.waiters == 0);
        if !has_left || !self.sched.reclaim_guest(id, now) {
            return;
        }
        if let Some(guest) = self.guests.remove(id) {
            for &worker in &guest.workers {
                self.workers.remove(worker);
            }
            let vcpus = guest.ids().vcpus().iter();
            let rows: Vec<VcpuRow> = vcpus.filter_map(|&vcpu| self.places.remove(vcpu)).collect();
            self.forgotten.push(Box::new((guest, rows)));
        }
    }

    /// The run is over: what happens to guests from here on changes nothing. Returns the accounts of those that
    /// are not leaving, in the order in which they joined.
    pub(crate) fn finish(&mut self, end: Ns) -> Vec<Vec<VcpuAccount>> {
        let joined = self.guests.in_order().into_iter();
        let joined = joined.filter(|guest| guest.membership == Membership::Joined);
        let ids: Vec<GuestId> = joined.map(|guest| guest.ids().guest()).collect();
        for &id in &ids {
            // A device's thread may keep the pool a moment longer than the guests' executors.
            if let Some(guest) = self.guests.get_mut(id) {
                guest.leave_policy();
            }
        }
        let accounts = ids.iter().map(|&id| self.accounts(id, end)).collect();
        for id in ids {
            let vcpus = self
                .guests
                .get(id)
                .map(|guest| Arc::clone(guest.ids().vcpus()));
            for &vcpu in vcpus.iter().flat_map(|vcpus| vcpus.iter()) {
                self.places.end(vcpu);
            }
        }
        accounts
    }

    /// The threads of the vCPUs of guest `id`, to be dropped without the pool's lock.
    pub(crate) fn take_threads_of(&mut self, id: GuestId) -> GuestThreads {
        let guest = self.guests.get_mut(id);
        guest.map_or_else(GuestThreads::new, |guest| {
            std::mem::take(&mut guest.threads)
        })
    }

    /// The threads of all vCPUs, to be dropped without the pool's lock.
    pub(crate) fn take_threads(&mut self) -> Vec<GuestThreads> {
        let threads = |guest: &mut PoolGuest| std::mem::take(&mut guest.threads);
        self.guests.iter_mut().map(threads).collect()
    }

    /// A thread begins to wait for a change of guest `id`.
    pub(super) fn wait_for(&mut self, id: GuestId) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.waiters += 1;
        }
    }

    /// A thread waits no longer for a change of guest `id`.
    pub(super) fn waited_for(&mut self, id: GuestId, now: Ns) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.waiters -= 1;
        }
        self.forget_if_free(id, now);
    }

    /// Something about guest `id` has changed for which a thread may wait.
    pub(super) fn changed(&mut self, id: GuestId) {
        let guest = self.guests.get(id);
        self.wakes_waiters |= guest.is_some_and(|guest| guest.waiters > 0);
    }

    fn show_steal(&mut self, vcpu: &mut OwnedVcpu) {
        let counters = self.sched.counters(vcpu.id());
        let waited = counters.waited_ns + counters.throttled_wait_ns;
        vcpu.show_steal(waited, counters.host_steal_ns);
    }

    /// The vCPUs of this process that are in the pool.
    #[cfg(test)]
    pub(crate) fn in_pool(&mut self) -> impl Iterator<Item = &mut baton_machine::Vcpu> {
        self.places.in_pool()
    }
}
