//! Which CPU is kicked when a claim becomes eligible: an idle one, else the one that does the least
//! urgent work.

use std::cmp::Reverse;

use crate::classes::rank::{Rank, more_urgent};
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{Running, ScState, SchedClass};

impl<E: Events> Scheduler<E> {
    /// Asks the executor of `cpu` to look again.
    pub(crate) fn kick(&mut self, cpu: CpuId, now: Ns) {
        let c = &mut self.cpus[cpu.index()];
        if c.kicked {
            return;
        }
        c.kicked = true;
        self.looking.insert(cpu);
        self.busy.remove(cpu.0);
        if !c.choosing {
            self.kicks.insert(cpu);
            self.emit(now, Event::Kick(cpu));
        }
    }

    /// Finds a CPU for `claim`, which has just become eligible.
    pub(crate) fn preempt_for(&mut self, claim: VcpuId, now: Ns) {
        let rank = self.vcpus[claim.index()].sc.rank();
        let domain = match self.vcpus[claim.index()].sc.state {
            ScState::Queued(domain) => domain,
            // Its vCPU runs on another vCPU's budget. If its own claim is more urgent, that CPU looks
            // again, so that the right claim is charged.
            ScState::Proxied => {
                if let crate::state::contexts::ExecState::Running(cpu) =
                    self.vcpus[claim.index()].ec.state
                    && self.running_rank(cpu).is_some_and(|running| running > rank)
                {
                    self.kick(cpu, now);
                }
                return;
            }
            _ => return,
        };
        let cpus = self.domains[domain].cpus;
        let last = self.vcpus[claim.index()].ec.last_cpu;
        let idle = self.idle.and(cpus);
        // One that has been kicked is about to take another claim.
        let free = |cpu: &CpuId| !self.cpus[cpu.index()].kicked;
        if !idle.is_empty() {
            let warm = Some(last).filter(|&cpu| idle.contains(cpu) && free(&cpu));
            if let Some(cpu) = warm.or_else(|| idle.iter().find(free)) {
                self.kick(cpu, now);
                return;
            }
        }
        if let Rank::Fair(..) = rank {
            // A best-effort vCPU that ran alone has no slice yet. It gets one now.
            for cpu in self.unsliced.and(cpus).iter() {
                self.kick(cpu, now);
            }
            return;
        }
        if let Some((running, cpu)) = self.least_urgent(cpus)
            && more_urgent(rank, running)
        {
            self.kick(cpu, now);
        }
    }

    /// `woken` has just become runnable by best effort. If it is first in its queue and its tag is below
    /// the one that the running vCPU would have if its slice ended now, that slice ends. Without this, a
    /// vCPU that sleeps often would wait for up to a slice at each wake-up.
    pub(crate) fn preempt_for_woken(&mut self, woken: VcpuId, now: Ns) {
        let sc = &self.vcpus[woken.index()].sc;
        let (ScState::Queued(domain), Rank::Fair(tag, _)) = (sc.state, sc.rank()) else {
            return;
        };
        let domain = &self.domains[domain];
        if domain.queue.first().map(|(_, first)| VcpuId(first)) != Some(woken) {
            return;
        }
        // A CPU that is kicked or about to pick will find it.
        let finds = |cpu: CpuId| {
            let c = &self.cpus[cpu.index()];
            c.kicked || c.running.is_none()
        };
        if domain.cpus.iter().any(finds) {
            return;
        }
        let last = self.vcpus[woken.index()].ec.last_cpu;
        let candidates = [
            Some(last),
            self.least_urgent(domain.cpus).map(|(_, cpu)| cpu),
        ];
        let ahead = |cpu: &CpuId| self.tag_on(*cpu, now).is_some_and(|running| tag < running);
        let cpus = domain.cpus;
        let worn = candidates
            .into_iter()
            .flatten()
            .filter(|cpu| cpus.contains(*cpu))
            .find(ahead);
        if let Some(cpu) = worn {
            self.cpus[cpu.index()].yields = true;
            self.kick(cpu, now);
        }
    }

    /// The tag of the best-effort claim on `cpu` if its slice ended now, and may.
    fn tag_on(&self, cpu: CpuId, now: Ns) -> Option<u128> {
        let Running { donor, since, .. } = self.cpus[cpu.index()].running?;
        let payer = &self.vcpus[donor.index()];
        let SchedClass::Fair(fair) = &payer.sc.class else {
            return None;
        };
        let sharers = self.guests[payer.guest.index()].runnable;
        fair.tag_if_ended(now.saturating_sub(since), self.config.slice_ns, sharers)
    }

    /// The CPU among `cpus` that does the least urgent work and has not been kicked.
    pub(crate) fn least_urgent(&self, cpus: CpuSet) -> Option<(Rank, CpuId)> {
        let (Reverse(rank), cpu) = self.busy.first()?;
        if cpus.contains(CpuId(cpu)) {
            return Some((rank, CpuId(cpu)));
        }
        let among = cpus.iter();
        among
            .filter_map(|cpu| Some((self.busy.key(cpu.0)?.0, cpu)))
            .max()
    }

    /// The rank of the claim that pays on `cpu`.
    fn running_rank(&self, cpu: CpuId) -> Option<Rank> {
        let Running { donor, .. } = self.cpus[cpu.index()].running?;
        Some(self.vcpus[donor.index()].sc.rank())
    }
}
