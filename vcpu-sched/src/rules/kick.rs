//! Which CPU is kicked for a scheduling context that became eligible. Each event that can make one
//! eligible ends in a function of this file:
//!
//! | event | function | CPU |
//! |---|---|---|
//! | wake-up, replenishment, end of parking, a move to another domain | [`kick_for`] | an idle one, else the one that does the least urgent work |
//! | wake-up of a best-effort vCPU | [`kick_for_woken`] also | one whose slice may end |
//! | wake-up of a vCPU whose scheduling context carries a holder | [`kick_for`] also | the one where it is the donor |
//! | a CPU has picked | [`kick_for_next`] | as [`kick_for`], for the next in each of its queues |
//! | a CPU has stopped a vCPU | [`kick_for_stopped`] | none, if the pick that follows sees to it |
//! | CPUs went offline or online | [`kick_for_all_queues`] | as [`kick_for`], for the first in each queue |
//! | a worker waits | [`kick_unsliced`] | those that run without a slice |
//!
//! **No two CPUs may kick each other for ever.** Three rules see to that, each with its reason where it
//! stands: a CPU that has been kicked, or is about to pick, is not kicked again; what stops on a CPU is
//! left to the pick of that CPU ([`kick_for_stopped`]); and what is parked behind it and pinned elsewhere
//! competes only after that pick (`Scheduler::unpark_here` in `park.rs`).
//!
//! CPUs are kicked for timers too: see `timers.rs`.
//!
//! [`kick_for`]: Scheduler::kick_for
//! [`kick_for_woken`]: Scheduler::kick_for_woken
//! [`kick_for_next`]: Scheduler::kick_for_next
//! [`kick_for_stopped`]: Scheduler::kick_for_stopped
//! [`kick_for_all_queues`]: Scheduler::kick_for_all_queues
//! [`kick_unsliced`]: Scheduler::kick_unsliced

use crate::classes::rank::Rank;
use crate::classes::virtual_time::VirtualTime;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, DomainId, Ns, VcpuId};
use crate::proxy::Proxy;
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::cpu_table::CpuRow;

impl<E: Events> Scheduler<E> {
    /// `cpu` reschedules: its executor is kicked, unless that has been done or the CPU is about to pick.
    pub(crate) fn kick(&mut self, cpu: CpuId, now: Ns) {
        if self.cpus.kick(cpu) {
            self.emit(now, Event::Kick(cpu));
        }
    }

    /// Finds a CPU for the scheduling context of `vcpu`, which has become eligible.
    pub(crate) fn kick_for(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus[vcpu].sc.state {
            ScState::Queued(domain) => self.kick_for_queued(vcpu, domain, now),
            ScState::Proxied => self.kick_for_proxied(vcpu, now),
            // Its own vCPU woke while it carries a holder, and gets the CPU back.
            ScState::OnCpu(cpu) => self.kick(cpu, now),
            ScState::Off | ScState::Parked(_) | ScState::Throttled => {}
        }
    }

    fn kick_for_queued(&mut self, vcpu: VcpuId, domain: DomainId, now: Ns) {
        let cpus = self.domains[domain].cpus;
        if let Some(cpu) = self.idle_cpu_for(vcpu, cpus) {
            self.kick(cpu, now);
            return;
        }
        let rank = self.vcpus[vcpu].sc.rank();
        if !rank.is_deadline() {
            // A best-effort vCPU that ran alone has no slice yet. It gets one now.
            self.kick_unsliced(cpus, now);
        } else if let Some((running, cpu)) = self.cpus.least_urgent(cpus)
            && rank.preempts(running)
        {
            self.kick(cpu, now);
        }
    }

    /// An idle CPU among `cpus`, if possible the one where `vcpu` ran last. A CPU that has been kicked is
    /// about to take another vCPU.
    fn idle_cpu_for(&self, vcpu: VcpuId, cpus: CpuSet) -> Option<CpuId> {
        let idle = self.cpus.idle().and(cpus);
        if idle.is_empty() {
            return None;
        }
        let last = self.vcpus[vcpu].ec.last_cpu;
        let free = |cpu: &CpuId| !self.cpus[*cpu].needs_resched();
        let warm = Some(last).filter(|&cpu| idle.contains(cpu) && free(&cpu));
        warm.or_else(|| idle.iter().find(free))
    }

    /// `vcpu` runs on another vCPU's scheduling context. If its own is more urgent, that CPU reschedules,
    /// so that the right one is charged.
    fn kick_for_proxied(&mut self, vcpu: VcpuId, now: Ns) {
        let v = &self.vcpus[vcpu];
        if let ExecState::Running(cpu) = v.ec.state
            && let Some(running) = self.cpus.running(cpu)
            && self.vcpus[running.donor].sc.rank() > v.sc.rank()
        {
            self.kick(cpu, now);
        }
    }

    /// CPUs among `cpus` that run a best-effort vCPU without a slice give it one.
    pub(crate) fn kick_unsliced(&mut self, cpus: CpuSet, now: Ns) {
        for cpu in self.cpus.unsliced().and(cpus).iter() {
            self.kick(cpu, now);
        }
    }

    /// `woken` has just become runnable by best effort. If it is first in its queue and its tag is below
    /// the one that the running vCPU would have if its slice ended now, that slice ends. Without this, a
    /// vCPU that sleeps often would wait for up to a slice at each wake-up.
    pub(crate) fn kick_for_woken(&mut self, woken: VcpuId, now: Ns) {
        let v = &self.vcpus[woken];
        let (ScState::Queued(domain), Some(tag)) = (v.sc.state, v.sc.class.tag()) else {
            return;
        };
        let domain = &self.domains[domain];
        if domain.queue.first().map(|(_, first)| first) != Some(woken) {
            return;
        }
        let cpus = domain.cpus;
        // A CPU that is kicked or about to pick will find it.
        let will_find = |row: &CpuRow| row.needs_resched() || row.running().is_none();
        if cpus.iter().any(|cpu| will_find(&self.cpus[cpu])) {
            return;
        }
        let least_urgent = self.cpus.least_urgent(cpus).map(|(_, cpu)| cpu);
        let ahead = |&cpu: &CpuId| {
            let running = self.tag_if_preempted(cpu, now);
            cpus.contains(cpu) && running.is_some_and(|running| tag < running)
        };
        let candidates = [Some(v.ec.last_cpu), least_urgent];
        if let Some(cpu) = candidates.into_iter().flatten().find(ahead) {
            if let Some(running) = self.cpus.running_mut(cpu) {
                running.slice_ends = true;
            }
            self.kick(cpu, now);
        }
    }

    /// The tag of the best-effort donor on `cpu` if its slice ended now; `None` if it may not end.
    fn tag_if_preempted(&self, cpu: CpuId, now: Ns) -> Option<VirtualTime> {
        let running = self.cpus.running(cpu)?;
        let class = &self.vcpus[running.donor].sc.class;
        let sharers = self.sharers(running.donor);
        class.tag_if_preempted(running.ran(now), self.config.slice_ns, sharers)
    }

    /// `cpu` has picked. The next scheduling context in each of its queues may deserve another CPU: two can
    /// come back from one CPU, that of a donor and that of the vCPU it carried, and a kick that was meant
    /// for one may have served another.
    pub(crate) fn kick_for_next(&mut self, cpu: CpuId, now: Ns) {
        for domain in self.domains.place_ids() {
            let domain = self.domains.get(domain);
            let here = domain.filter(|domain| domain.cpus.contains(cpu));
            let Some((rank, next)) = here.and_then(|domain| domain.queue.first()) else {
                continue;
            };
            let cpus = &self.cpus;
            if rank.is_deadline() || !cpus.idle().is_empty() || !cpus.unsliced().is_empty() {
                self.kick_for(next, now);
            }
        }
    }

    /// The CPUs of the pool have changed: the first in each queue may deserve another CPU. The CPU that it
    /// gets sees to the next ([`Scheduler::kick_for_next`]).
    pub(crate) fn kick_for_all_queues(&mut self, now: Ns) {
        for domain in self.domains.place_ids() {
            let domain = self.domains.get(domain);
            if let Some((_, first)) = domain.and_then(|domain| domain.queue.first()) {
                self.kick_for(first, now);
            }
        }
    }

    /// `cpu` has stopped, and the scheduling context of `vcpu` has come back from it into a queue. The pick
    /// that follows sees to the queues of this CPU. If the queue is that of other CPUs:
    ///
    /// - `vcpu` itself ran here: it was carried from another domain, or the CPUs of the pool have changed.
    /// - It was the donor, and came here because of its holder's pinning: it stays in this CPU's queue if
    ///   the vCPU that it carries can go on here. Otherwise it would come back here at once, and kick a CPU
    ///   on each way.
    pub(crate) fn kick_for_stopped(&mut self, vcpu: VcpuId, was_donor: bool, cpu: CpuId, now: Ns) {
        let ScState::Queued(domain) = self.vcpus[vcpu].sc.state else {
            return;
        };
        if self.domains[domain].cpus.contains(cpu) {
            return;
        }
        if was_donor && let Proxy::Run { curr, .. } = self.find_proxy(vcpu, cpu, now) {
            self.dequeue(vcpu);
            self.enqueue(vcpu, self.vcpus[curr].ec.domain);
        } else {
            self.kick_for(vcpu, now);
        }
    }

    /// The rank of the donor on `cpu` has changed.
    pub(crate) fn donor_rank_changed(&mut self, cpu: CpuId, rank: Rank, now: Ns) {
        if self.cpus.set_rank(cpu, rank) {
            // Another CPU may do the least urgent work now.
            self.find_timekeepers(now);
        }
    }
}
