//! The interface between a scheduling policy and the owner of the host CPUs: executors on KVM, or the simulator.
//!
//! [`Scheduler`] is the policy of this crate. A researcher who tries another one implements [`Policy`] for it
//! and adds it to [`PolicyKind`](crate::PolicyKind). Then `baton run --sched`, `baton sim --sched` and
//! `baton bench lhp --policies` can run it. [`RoundRobin`](crate::RoundRobin) is such a policy, and short
//! enough to start from.
//!
//! # What the owner does
//! For each CPU, in a loop: [`Policy::pick`] a decision, run [`Decision::curr`] until [`Decision::until`], a
//! kick or an exit, then report it by [`Policy::stop`]. Between those calls come wake-ups
//! ([`Policy::wake`]), from any CPU. All calls are made under one lock, with times that do not go back. After
//! each of them the owner takes [`Policy::take_kicks`] and makes those CPUs stop and pick again.
//!
//! # What a policy has to implement
//! Guests and vCPUs come and go, `pick`, `stop`, `wake`, and what observers see. Everything else has a
//! default that ignores hints, grants no deferral, and lets the threads of devices work at once.

use std::fmt::Debug;

use crate::classes::admission::AdmissionError;
use crate::classes::reservation::{Reservation, SchedParams};
use crate::config::Config;
use crate::counters::Counters;
use crate::cpuset::CpuSet;
use crate::events::Events;
use crate::ids::{CpuId, CpuTime, GuestId, Ns, VcpuId, WorkerId};
use crate::rules::pick::Decision;
use crate::rules::pool_cpus::CpuRemovalError;
use crate::rules::stop::StopReason;
use crate::rules::suspect::Suspects;
use crate::scheduler::Scheduler;
use crate::state::blocked_on::Hints;
use crate::state::worker_table::WorkerOrder;
use crate::view::{CpuView, VcpuView};

/// A scheduling policy of one pool of host CPUs. The owner of the host CPUs calls it.
pub trait Policy<E: Events>: Debug + Send {
    // Guests and vCPUs.

    /// Adds a guest without vCPUs.
    fn add_guest(&mut self) -> GuestId;

    /// Adds a vCPU to `guest`, halted. `allowed` of `None` means every CPU of the pool. Ids are given in
    /// order, from 0; those that were reclaimed come first, the lowest before others.
    ///
    /// # Errors
    /// What the policy cannot guarantee, or does not offer.
    fn add_vcpu(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        allowed: Option<CpuSet>,
    ) -> Result<VcpuId, AdmissionError>;

    /// Takes a vCPU out for good. If it runs, its CPU is kicked. Its id is free when its guest is reclaimed.
    fn remove(&mut self, vcpu: VcpuId, now: Ns);

    /// Removes a guest for good, with its vCPUs and workers. CPUs that run its vCPUs are kicked, and workers that
    /// work are ordered to stop. False, and nothing changes, if there is no such guest, or it is being removed
    /// already.
    fn remove_guest(&mut self, guest: GuestId, now: Ns) -> bool;

    /// Forgets a guest that has been removed. Its name and those of its vCPUs and workers are free, and will name
    /// others. Call this once nobody uses them any longer. False, and nothing changes, if the guest has not been
    /// removed, a CPU has yet to stop one of its vCPUs, or a worker has yet to report that it stopped.
    fn reclaim_guest(&mut self, guest: GuestId, now: Ns) -> bool;

    /// Pauses a guest: its vCPUs get no CPU time, and lend none. CPUs that run something for it are kicked, and
    /// workers that work for it are ordered to stop. False, and nothing changes, if there is no such guest, or if
    /// it is paused or being removed.
    fn pause(&mut self, guest: GuestId, now: Ns) -> bool;

    /// Resumes a guest that is paused, and delivers the wake-ups that have come meanwhile. False, and nothing
    /// changes, for any other.
    fn resume(&mut self, guest: GuestId, now: Ns) -> bool;

    // Changes for a vCPU that exists. After an error, nothing has changed.

    /// Gives `vcpu` this reservation in place of the one, or the weight, that it has. It is in force from the next
    /// budget on.
    ///
    /// # Errors
    /// What the policy cannot guarantee, or does not offer; the vCPU has ended.
    fn set_reservation(
        &mut self,
        vcpu: VcpuId,
        reservation: Reservation,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        let _ = (vcpu, reservation, now);
        Err(AdmissionError::NoReservations)
    }

    /// Gives `vcpu` this weight of its guest in place of the one, or the reservation, that it has. It is in force
    /// from the next slice on. A policy that shares by no weights ignores it.
    ///
    /// # Errors
    /// The vCPU has ended.
    fn set_weight(&mut self, vcpu: VcpuId, weight: u32, now: Ns) -> Result<(), AdmissionError> {
        let _ = (vcpu, weight, now);
        Ok(())
    }

    /// Lets `vcpu` run on these CPUs from now on; `None`: on every CPU of the pool. If it runs on another one, that
    /// is kicked.
    ///
    /// # Errors
    /// What the policy cannot guarantee; the vCPU has ended.
    fn set_allowed(
        &mut self,
        vcpu: VcpuId,
        allowed: Option<CpuSet>,
        now: Ns,
    ) -> Result<(), AdmissionError>;

    /// Frees the bandwidth of reservations that were removed, made smaller or moved to other CPUs, as far as it is
    /// no longer used at `now`. Returns when all of it is free, ns; `None`: it is. Until then
    /// [`Policy::add_vcpu`] counts it as taken.
    fn free_held_bandwidth(&mut self, now: Ns) -> Option<Ns> {
        let _ = now;
        None
    }

    // Decisions.

    /// Decides what `cpu` runs. `None`: nothing; the CPU sleeps until it is kicked, or until
    /// [`Policy::next_timer`].
    fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision>;

    /// `cpu` has stopped what it ran, which used `ran` of CPU time and published `hints`. The next call
    /// for this CPU is [`Policy::pick`].
    fn stop(&mut self, cpu: CpuId, why: StopReason, hints: Hints, ran: CpuTime, now: Ns);

    /// The vCPU has something to run. For one that is not halted, the next halt ends at once.
    fn wake(&mut self, vcpu: VcpuId, now: Ns);

    /// The CPUs that should stop and pick again, because of what happened since the last call.
    fn take_kicks(&mut self) -> CpuSet;

    /// When something happens by itself, ns: a sleeping CPU wakes up and picks then.
    fn next_timer(&self) -> Option<Ns> {
        None
    }

    // Hints: what guests publish about their locks.

    /// What runs on `cpu` wakes `vcpu`, which may hand it a lock.
    fn wake_by(&mut self, cpu: CpuId, vcpu: VcpuId, now: Ns) {
        let _ = cpu;
        self.wake(vcpu, now);
    }

    /// What runs on `cpu` has released the lock for which it was proxied; `to` has it now, if known.
    fn release(&mut self, cpu: CpuId, to: Option<VcpuId>, now: Ns) {
        let _ = (cpu, to, now);
    }

    /// What runs on `cpu` has handed `lock` to `to`.
    fn hand_over(&mut self, cpu: CpuId, lock: u64, to: VcpuId, now: Ns) {
        let _ = (cpu, lock, to, now);
    }

    /// The time of what runs on `cpu` is up, and it published `hints`: until when it may run on, ns.
    /// `None`: it is preempted.
    fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        let _ = (cpu, hints, now);
        None
    }

    /// What runs on `cpu` spins for a holder that is not known: who may that be?
    fn suspects(&self, cpu: CpuId) -> Suspects {
        let _ = cpu;
        Suspects::None
    }

    // What guests that leave have had before others.

    /// CPU time by which `vcpu`, or the guest whose weight it shares, is ahead of others, ns.
    fn lead(&self, vcpu: VcpuId) -> Ns {
        let _ = vcpu;
        0
    }

    /// `vcpu`, which has not run yet, starts ahead of others by `lead` ns.
    fn owe(&mut self, vcpu: VcpuId, lead: Ns) {
        let _ = (vcpu, lead);
    }

    // CPU time that a vCPU uses while it does not run.

    /// Other threads have used `spent` of CPU time for `vcpu`.
    fn charge_elsewhere(&mut self, vcpu: VcpuId, spent: CpuTime, now: Ns);

    /// The sleep of `vcpu` and its wake-up have used `spent` of CPU time, on `cpu` if that is of the pool.
    fn charge_sleep(&mut self, vcpu: VcpuId, spent: CpuTime, cpu: Option<CpuId>, now: Ns) {
        let _ = cpu;
        self.charge_elsewhere(vcpu, spent, now);
    }

    /// The host gave `taken` of the time in which `vcpu` was on a CPU to others. Called before the vCPU is stopped.
    fn host_took(&mut self, vcpu: VcpuId, taken: CpuTime);

    /// Whether `vcpu` has no budget at present.
    fn is_throttled(&self, vcpu: VcpuId) -> bool {
        let _ = vcpu;
        false
    }

    /// Whether `vcpu`, which halts, may sleep where its interrupts wake it at once.
    ///
    /// # Errors
    /// The time until which it may not, ns.
    fn may_sleep(&mut self, vcpu: VcpuId, now: Ns) -> Result<(), Ns> {
        let _ = (vcpu, now);
        Ok(())
    }

    // Workers: threads of a guest's devices.

    /// Adds a worker of `guest`, which has nothing to do yet. Ids are given as those of vCPUs are.
    fn add_worker(&mut self, guest: GuestId) -> WorkerId;

    /// `worker` has something to do. It begins when [`Policy::take_worker_orders`] permits it.
    fn worker_ready(&mut self, worker: WorkerId, now: Ns);

    /// `worker` has stopped, and used `spent` of CPU time since it stopped last.
    fn worker_stopped(&mut self, worker: WorkerId, spent: CpuTime, now: Ns);

    /// What workers are permitted or asked to do because of what happened since the last call.
    fn take_worker_orders(&mut self) -> Vec<WorkerOrder>;

    // Host CPUs.

    /// The CPUs of the pool, online or not.
    fn pool_cpus(&self) -> CpuSet;

    /// The pool gets `cpu`, which is online. False, and nothing changes, if it has it, or [`Config::cpus`] has no place
    /// for it.
    fn add_cpu(&mut self, cpu: CpuId, now: Ns) -> bool;

    /// The pool gives `cpu` up, which is kicked, and picks nothing from then on.
    ///
    /// # Errors
    /// Why the pool has to keep it; nothing changes then.
    fn remove_cpu(&mut self, cpu: CpuId, now: Ns) -> Result<(), CpuRemovalError>;

    /// The CPUs of the pool that are online.
    fn online_cpus(&self) -> CpuSet;

    /// `cpu` is offline from now on. False, and nothing changes, if it is already, or is the last one.
    fn cpu_offline(&mut self, cpu: CpuId, now: Ns) -> bool;

    /// `cpu` is online again. False, and nothing changes, if it was not offline.
    fn cpu_online(&mut self, cpu: CpuId, now: Ns) -> bool;

    // What observers see.

    /// The pool's configuration.
    fn config(&self) -> &Config;

    /// The counters of a vCPU, without what is not over; zeros for one that does not exist.
    fn counters(&self, vcpu: VcpuId) -> Counters;

    /// The counters of a vCPU with what is not over at `now`.
    fn counters_at(&self, vcpu: VcpuId, now: Ns) -> Counters;

    /// The state of a vCPU; `None` if it does not exist.
    fn view(&self, vcpu: VcpuId) -> Option<VcpuView>;

    /// What `cpu` runs; `None` if nothing.
    fn view_cpu(&self, cpu: CpuId) -> Option<CpuView>;

    /// The listener.
    fn events(&self) -> &E;

    /// The listener, to record what the policy does not report.
    fn events_mut(&mut self) -> &mut E;

    /// The listener, at the end.
    fn into_events(self: Box<Self>) -> E;

    /// Checks the promises that can be checked between two calls; the simulator calls this after each.
    ///
    /// # Errors
    /// The promise that is broken.
    fn audit(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Events + Debug + Send> Policy<E> for Scheduler<E> {
    fn add_guest(&mut self) -> GuestId {
        self.add_guest()
    }

    fn add_vcpu(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        allowed: Option<CpuSet>,
    ) -> Result<VcpuId, AdmissionError> {
        self.add_vcpu(guest, params, allowed)
    }

    fn remove(&mut self, vcpu: VcpuId, now: Ns) {
        self.remove(vcpu, now);
    }

    fn remove_guest(&mut self, guest: GuestId, now: Ns) -> bool {
        self.remove_guest(guest, now)
    }

    fn reclaim_guest(&mut self, guest: GuestId, now: Ns) -> bool {
        self.reclaim_guest(guest, now)
    }

    fn pause(&mut self, guest: GuestId, now: Ns) -> bool {
        self.pause(guest, now)
    }

    fn resume(&mut self, guest: GuestId, now: Ns) -> bool {
        self.resume(guest, now)
    }

    fn set_reservation(
        &mut self,
        vcpu: VcpuId,
        reservation: Reservation,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        self.set_reservation(vcpu, reservation, now)
    }

    fn set_weight(&mut self, vcpu: VcpuId, weight: u32, now: Ns) -> Result<(), AdmissionError> {
        self.set_weight(vcpu, weight, now)
    }

    fn set_allowed(
        &mut self,
        vcpu: VcpuId,
        allowed: Option<CpuSet>,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        self.set_allowed(vcpu, allowed, now)
    }

    fn free_held_bandwidth(&mut self, now: Ns) -> Option<Ns> {
        self.free_held_bandwidth(now)
    }

    fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        self.pick(cpu, now)
    }

    fn stop(&mut self, cpu: CpuId, why: StopReason, hints: Hints, ran: CpuTime, now: Ns) {
        self.stop(cpu, why, hints, ran, now);
    }

    fn wake(&mut self, vcpu: VcpuId, now: Ns) {
        self.wake(vcpu, now);
    }

    fn take_kicks(&mut self) -> CpuSet {
        self.take_kicks()
    }

    fn next_timer(&self) -> Option<Ns> {
        self.next_timer()
    }

    fn wake_by(&mut self, cpu: CpuId, vcpu: VcpuId, now: Ns) {
        self.wake_by(cpu, vcpu, now);
    }

    fn release(&mut self, cpu: CpuId, to: Option<VcpuId>, now: Ns) {
        self.release(cpu, to, now);
    }

    fn hand_over(&mut self, cpu: CpuId, lock: u64, to: VcpuId, now: Ns) {
        self.hand_over(cpu, lock, to, now);
    }

    fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        self.defer(cpu, hints, now)
    }

    fn suspects(&self, cpu: CpuId) -> Suspects {
        self.suspects(cpu)
    }

    fn lead(&self, vcpu: VcpuId) -> Ns {
        self.lead(vcpu)
    }

    fn owe(&mut self, vcpu: VcpuId, lead: Ns) {
        self.owe(vcpu, lead);
    }

    fn charge_elsewhere(&mut self, vcpu: VcpuId, spent: CpuTime, now: Ns) {
        self.charge_elsewhere(vcpu, spent, now);
    }

    fn charge_sleep(&mut self, vcpu: VcpuId, spent: CpuTime, cpu: Option<CpuId>, now: Ns) {
        self.charge_sleep(vcpu, spent, cpu, now);
    }

    fn host_took(&mut self, vcpu: VcpuId, taken: CpuTime) {
        self.host_took(vcpu, taken);
    }

    fn is_throttled(&self, vcpu: VcpuId) -> bool {
        self.is_throttled(vcpu)
    }

    fn may_sleep(&mut self, vcpu: VcpuId, now: Ns) -> Result<(), Ns> {
        self.may_sleep(vcpu, now)
    }

    fn add_worker(&mut self, guest: GuestId) -> WorkerId {
        self.add_worker(guest)
    }

    fn worker_ready(&mut self, worker: WorkerId, now: Ns) {
        self.worker_ready(worker, now);
    }

    fn worker_stopped(&mut self, worker: WorkerId, spent: CpuTime, now: Ns) {
        self.worker_stopped(worker, spent, now);
    }

    fn take_worker_orders(&mut self) -> Vec<WorkerOrder> {
        self.take_worker_orders().collect()
    }

    fn pool_cpus(&self) -> CpuSet {
        self.pool_cpus()
    }

    fn add_cpu(&mut self, cpu: CpuId, now: Ns) -> bool {
        self.add_cpu(cpu, now)
    }

    fn remove_cpu(&mut self, cpu: CpuId, now: Ns) -> Result<(), CpuRemovalError> {
        self.remove_cpu(cpu, now)
    }

    fn online_cpus(&self) -> CpuSet {
        self.online_cpus()
    }

    fn cpu_offline(&mut self, cpu: CpuId, now: Ns) -> bool {
        self.cpu_offline(cpu, now)
    }

    fn cpu_online(&mut self, cpu: CpuId, now: Ns) -> bool {
        self.cpu_online(cpu, now)
    }

    fn config(&self) -> &Config {
        self.config()
    }

    fn counters(&self, vcpu: VcpuId) -> Counters {
        self.counters(vcpu)
    }

    fn counters_at(&self, vcpu: VcpuId, now: Ns) -> Counters {
        self.counters_at(vcpu, now)
    }

    fn view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        self.view(vcpu)
    }

    fn view_cpu(&self, cpu: CpuId) -> Option<CpuView> {
        self.view_cpu(cpu)
    }

    fn events(&self) -> &E {
        &self.events
    }

    fn events_mut(&mut self) -> &mut E {
        &mut self.events
    }

    fn into_events(self: Box<Self>) -> E {
        self.events
    }

    fn audit(&self) -> Result<(), String> {
        crate::audit::audit(self)
    }
}
