//! Who is kicked when a claim becomes eligible: an idle CPU, else the one that does the least
//! urgent work.

use crate::contexts::{ClaimState, Rank, Running};
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;

impl<E: Events> Scheduler<E> {
    /// Asks the executor of `cpu` to look again.
    pub(crate) fn kick(&mut self, cpu: CpuId, now: Ns) {
        let c = &mut self.cpus[cpu.index()];
        if c.kicked {
            return;
        }
        c.kicked = true;
        if !c.choosing {
            self.kicks.insert(cpu);
            self.tell(now, Event::Kick(cpu));
        }
    }

    /// Finds a CPU for `claim`, which has just become eligible.
    pub(crate) fn preempt_for(&mut self, claim: VcpuId, now: Ns) {
        let rank = self.vcpus[claim.index()].sc.rank();
        let domain = match self.vcpus[claim.index()].sc.state {
            ClaimState::Queued(domain) => domain,
            // Its vCPU runs on someone else's budget. If its own is more urgent, that CPU shall
            // look again, and charge the right one.
            ClaimState::Riding => {
                if let crate::contexts::ExecState::Running(cpu) = self.vcpus[claim.index()].ec.state
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
        if let Rank::BestEffort(..) = rank {
            // Those who ran alone have no slice yet: they get one now.
            for cpu in self.unsliced.and(cpus).iter() {
                self.kick(cpu, now);
            }
            return;
        }
        let busy = cpus.minus(idle).iter().filter(free);
        let least = busy
            .filter_map(|cpu| Some((self.running_rank(cpu)?, cpu)))
            .max();
        if let Some((running, cpu)) = least
            && more_urgent(rank, running)
        {
            self.kick(cpu, now);
        }
    }

    /// The rank of the claim that pays on `cpu`.
    fn running_rank(&self, cpu: CpuId) -> Option<Rank> {
        let Running { donor, .. } = self.cpus[cpu.index()].running?;
        Some(self.vcpus[donor.index()].sc.rank())
    }
}

/// Whether `rank` may take the CPU from `running` before its slice ends: an earlier deadline may,
/// an equal one and a best-effort claim may not.
fn more_urgent(rank: Rank, running: Rank) -> bool {
    match (rank, running) {
        (Rank::Reserved(deadline, _), Rank::Reserved(other, _)) => deadline < other,
        (Rank::Reserved(..), Rank::BestEffort(..)) => true,
        (Rank::BestEffort(..), _) => false,
    }
}
