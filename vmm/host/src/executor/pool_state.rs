//! What the pool's lock protects: the policy, and where its vCPUs are. Both change together.

use std::sync::Arc;

use baton_machine::{ExitCounts, GuestRecord, Vcpu};
use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet, CpuTime, Hints, Ns, StopReason, VcpuId};

use super::after_unlock::AfterUnlock;
use super::assignment::Assignment;
use super::owned_vcpu::OwnedVcpu;
use super::pool_guest::{NewGuest, PoolGuest};
use super::probes::PoolPolicy;
use super::vcpu_places::{NotInPool, VcpuPlaces};

/// The policy and the vCPUs of a pool.
pub(crate) struct PoolState {
    pub(crate) sched: PoolPolicy,
    places: VcpuPlaces,
    guests: Vec<PoolGuest>,
    /// Steal time that each vCPU has been shown.
    steal_shown: Vec<Ns>,
    /// vCPUs that the policy picked or woke while they slept in `KVM_RUN`: their sleep is to end.
    interrupts: Vec<VcpuId>,
    is_stopping: bool,
}

impl PoolState {
    pub(crate) fn new(
        sched: PoolPolicy,
        guests: Vec<NewGuest>,
        vcpus: impl Iterator<Item = Box<Vcpu>>,
    ) -> Self {
        let places = VcpuPlaces::new(vcpus);
        Self {
            sched,
            guests: guests.into_iter().map(PoolGuest::from).collect(),
            steal_shown: vec![0; places.count()],
            places,
            interrupts: Vec::new(),
            is_stopping: false,
        }
    }

    /// The guest with this number.
    pub(crate) fn guest(&self, number: usize) -> &PoolGuest {
        &self.guests[number]
    }

    /// The records of all guests, in order.
    pub(crate) fn records(&self) -> Vec<Arc<GuestRecord>> {
        let records = self.guests.iter().map(PoolGuest::record);
        records.map(Arc::clone).collect()
    }

    /// Whether the executors are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// From here on nothing is picked.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Collects what is to be done once the lock is free.
    pub(crate) fn after_unlock(&mut self) -> AfterUnlock {
        let mut after = AfterUnlock {
            kicks: self.sched.take_kicks(),
            worker_orders: self.sched.take_worker_orders(),
            ended: self.places.take_ended(),
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

    /// Counts a doorbell of guest `number` that changed nothing. True, once, when that is a storm.
    pub(crate) fn count_needless_doorbell(&mut self, number: usize, now: Ns) -> bool {
        self.guests[number].storm.count(now)
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
        self.places.put_back(vcpu);
    }

    /// `vcpu`, which an executor has stopped, is to sleep in `KVM_RUN`. `None`: its guest has ended.
    pub(crate) fn send_to_sleep(&mut self, vcpu: OwnedVcpu) -> Option<OwnedVcpu> {
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
        self.places.put_back(vcpu);
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

    /// Wakes the vCPUs that start a guest. Where vCPUs can sleep in `KVM_RUN`, takes those that wait to
    /// be started; where they cannot, each runs from time to time until it is found halted.
    pub(crate) fn begin(
        &mut self,
        starters: &[VcpuId],
        can_sleep: bool,
        now: Ns,
    ) -> Vec<OwnedVcpu> {
        for &id in starters {
            self.sched.wake(id, now);
        }
        if can_sleep {
            return self.places.take_unstarted();
        }
        for id in 0..self.places.count() as u32 {
            self.sched.wake(VcpuId(id), now);
        }
        Vec::new()
    }

    /// The thread that ran `id` for `cpu` has failed, and the vCPU is lost with it.
    pub(crate) fn lose(&mut self, cpu: CpuId, id: VcpuId, ran: Ns) {
        self.places.lose(id);
        let now = sys::monotonic_ns();
        self.sched
            .stop(cpu, StopReason::Ended, Hints::default(), CpuTime(ran), now);
    }

    /// Charges what the console's thread has used for the guest of `id` since the last time.
    pub(crate) fn charge_console(&mut self, id: VcpuId, used: Ns, now: Ns) {
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

    /// Guest `number` has ended: its vCPUs leave the policy, wherever they are.
    pub(crate) fn remove_guest(&mut self, number: usize) -> AfterUnlock {
        let now = sys::monotonic_ns();
        let guest = &mut self.guests[number];
        if !guest.leave_policy() {
            return self.after_unlock();
        }
        for id in guest.vcpus() {
            self.sched.remove(id, now);
            self.sched.events_mut().gone(now, id);
            self.places.end(id);
            if self.places.is_asleep(id) {
                self.interrupts.push(id);
            }
        }
        self.after_unlock()
    }

    /// The counters of all vCPUs at the end of a run, with their numbers. The vCPUs that are in the
    /// pool go.
    pub(crate) fn take_counters(&mut self) -> impl Iterator<Item = (VcpuId, ExitCounts)> + use<> {
        for guest in &mut self.guests {
            // A device's thread may keep the pool a moment longer than the guests' executors.
            guest.leave_policy();
        }
        (0..).map(VcpuId).zip(self.places.take_counters())
    }

    fn show_steal(&mut self, vcpu: &mut OwnedVcpu) {
        let counters = self.sched.counters(vcpu.id());
        // Both are steal time: the guest could have run.
        let waited = counters.waited_ns + counters.throttled_wait_ns;
        let shown = std::mem::replace(&mut self.steal_shown[vcpu.id().index()], waited);
        let more = waited.saturating_sub(shown);
        vcpu.guest.hints.add_steal(vcpu.index, more);
        vcpu.guest.steal.add(vcpu.index, more);
        vcpu.gaps.waited(more);
    }

    /// The vCPUs that are in the pool.
    #[cfg(test)]
    pub(crate) fn in_pool(&mut self) -> impl Iterator<Item = &mut Vcpu> {
        self.places.in_pool()
    }
}
