//! What a CPU runs next: the earliest claim that may be served here, and the vCPU that it carries.

use std::cmp::Reverse;

use crate::classes::rank::Rank;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::proxy::Proxy;
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, Running, ScState, SchedClass};
use crate::state::timer_queue::sc_timer;

/// What to run, on whose budget, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whose scheduling context pays.
    pub donor: VcpuId,
    /// Whose execution context runs.
    pub curr: VcpuId,
    /// When the policy wants the CPU back, ns; `None`: not before something happens.
    pub until: Option<Ns>,
    /// Edges from `donor` to `run`; 0 when the donor runs itself.
    pub chain: u32,
    /// The lock that the last edge names; meaningful when `chain` > 0.
    pub lock: u64,
}

impl Decision {
    /// Whether a waiter's budget carries another vCPU.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.donor != self.curr
    }
}

impl<E: Events> Scheduler<E> {
    /// Decides what `cpu` runs. It must have stopped what it ran before ([`Scheduler::stop`]).
    /// `None`: nothing; it may sleep until it is kicked or until [`Scheduler::next_timer`].
    ///
    /// O(log n) for n vCPUs, plus a chain of at most [`crate::MAX_CHAIN`] edges for each claim that
    /// it looks at, and plus the timers of reserved claims that come before the end of the decision and
    /// cannot matter to it, which are passed over one by one. A claim that cannot be served is set aside
    /// and comes back by an event of its own guest, which is charged for causing it.
    ///
    /// # Panics
    /// If `cpu` is not of this pool.
    pub fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        debug_assert!(
            self.cpus[cpu.index()].running.is_none(),
            "{cpu} stopped before it picks"
        );
        if !self.present.contains(cpu) {
            self.pick_nothing(cpu, now);
            return None;
        }
        self.cpus[cpu.index()].choosing = true;
        self.looking.insert(cpu);
        self.idle.insert(cpu);
        self.fire_timers(now);
        let decision = self.decide(cpu, now);
        let c = &mut self.cpus[cpu.index()];
        (c.choosing, c.kicked) = (false, false);
        self.looking.remove(cpu);
        self.kicks.remove(cpu);
        if decision.is_none() {
            self.cpus[cpu.index()].sleeps_until = self.next_timer();
            self.emit(now, Event::Idle { cpu });
        }
        if let Some(stopped) = self.cpus[cpu.index()].stopped.take() {
            self.unpark_waiters(stopped, now);
        }
        self.offer_next(cpu, now);
        if decision.is_some() {
            self.keep_all_timers(now);
        }
        self.serve_workers(cpu, now);
        self.check();
        decision
    }

    /// Goes through the claims in order until one can be served.
    fn decide(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        while let Some(donor) = self.first_claim(cpu) {
            match self.find_proxy(donor, cpu, now) {
                Proxy::Run { curr, chain, lock } => {
                    self.idle.remove(cpu);
                    return Some(self.dispatch(cpu, donor, curr, chain, lock, now));
                }
                Proxy::Park { on } => self.park(donor, on, now),
                Proxy::Move { to } => {
                    let domain = self.vcpus[to.index()].ec.domain;
                    self.dequeue(donor);
                    self.enqueue(donor, domain);
                    self.preempt_for(donor, now);
                }
                Proxy::Off => self.dequeue(donor),
            }
        }
        None
    }

    /// The first claim in the queues that `cpu` serves.
    pub(crate) fn first_claim(&self, cpu: CpuId) -> Option<VcpuId> {
        let queues = self
            .domains
            .iter()
            .filter(|domain| domain.cpus.contains(cpu));
        let (_, first) = queues.filter_map(|domain| domain.queue.first()).min()?;
        Some(VcpuId(first))
    }

    /// Puts `run` on `cpu`, on `donor`'s claim.
    fn dispatch(
        &mut self,
        cpu: CpuId,
        donor: VcpuId,
        curr: VcpuId,
        chain: u32,
        lock: u64,
        now: Ns,
    ) -> Decision {
        self.dequeue(donor);
        self.vcpus[donor.index()].sc.state = ScState::OnCpu(cpu);
        if curr != donor
            && let ScState::Queued(_) | ScState::Parked(_) = self.vcpus[curr.index()].sc.state
        {
            self.count_misses(curr, now);
            self.dequeue(curr);
            self.vcpus[curr.index()].sc.state = ScState::Proxied;
        }
        self.count_misses(donor, now);
        // A vCPU that runs publishes anew for which vCPU it waits.
        self.drop_edge(curr, now);
        let v = &mut self.vcpus[curr.index()];
        v.end_wait(now);
        // Before its first run, `last_cpu` is only where it may run.
        let moved = v.ec.last_cpu != cpu && v.counters.switches > 0;
        v.counters.migrations += u64::from(moved);
        v.ec.state = ExecState::Running(cpu);
        v.ec.last_cpu = cpu;
        v.counters.longest_chain = v.counters.longest_chain.max(chain);
        let left = self.cpus[cpu.index()].left.take();
        if left.is_none_or(|(left, _)| left != curr) {
            v.counters.switches += 1;
            v.counters.proxied += u64::from(chain > 0);
            if let Some((left, Some(held))) = left {
                let left = &mut self.vcpus[left.index()].counters;
                left.preemptions += 1;
                left.holder_preemptions += u64::from(held);
            }
        }
        if let SchedClass::Fair(fair) = &self.vcpus[donor.index()].sc.class {
            let tag = fair.tag();
            self.pass_virtual_time(cpu, tag);
        }
        let rank = self.vcpus[donor.index()].sc.rank();
        let preemptible_at = match &self.vcpus[donor.index()].sc.class {
            SchedClass::Deadline(_) => now,
            SchedClass::Fair(fair) => {
                now.saturating_add(fair.until_preemptible(self.config.slice_ns))
            }
        };
        let until = self.until(cpu, donor, preemptible_at, now);
        self.busy.set(cpu.0, Reverse(rank));
        self.cpus[cpu.index()].running = Some(Running {
            donor,
            curr,
            since: now,
            until,
            preemptible_at,
            lock,
            deferred: false,
        });
        self.emit(
            now,
            Event::Pick {
                cpu,
                donor,
                curr,
                chain,
            },
        );
        Decision {
            donor,
            curr,
            until,
            chain,
            lock,
        }
    }

    /// Advances the virtual time of every queue that `cpu` serves to at least `tag`, where the slice that
    /// now runs began. A vCPU that joined with an older virtual time would keep the CPU until it had
    /// caught up.
    pub(crate) fn pass_virtual_time(&mut self, cpu: CpuId, tag: u128) {
        let queues = self.domains.iter_mut();
        for domain in queues.filter(|domain| domain.cpus.contains(cpu)) {
            domain.virtual_time = domain.virtual_time.max(tag);
        }
    }

    /// When the policy wants `cpu` back from `donor`'s claim.
    fn until(&mut self, cpu: CpuId, donor: VcpuId, preemptible_at: Ns, now: Ns) -> Option<Ns> {
        let own = match &self.vcpus[donor.index()].sc.class {
            SchedClass::Deadline(server) => {
                Some(now.saturating_add(server.budget().max(1).unsigned_abs()))
            }
            // Alone, a best-effort vCPU needs no end of a slice; a claim that joins kicks the CPU.
            SchedClass::Fair(fair) => {
                let contended = self.first_claim(cpu).is_some() || self.workers.any_waits();
                contended.then(|| now.saturating_add(fair.left(self.config.slice_ns)))
            }
        };
        if own.is_none() {
            self.unsliced.insert(cpu);
        }
        match self.timer_for(cpu, donor, preemptible_at, own) {
            Some(timer) if !self.idle_keeps_timer(timer, now) => Some(timer),
            _ => own,
        }
    }

    /// Sets a claim aside until `on` stops running or wakes; for a bounded time if its own vCPU
    /// could run, for that may have an interrupt to take.
    fn park(&mut self, claim: VcpuId, on: VcpuId, now: Ns) {
        let bounded = self.vcpus[claim.index()].ec.state != ExecState::Halted;
        self.dequeue(claim);
        self.vcpus[claim.index()].sc.state = ScState::Parked(on);
        self.parked.join(claim, on);
        if bounded {
            self.set_timer(
                sc_timer(claim),
                now.saturating_add(self.config.park_ns),
                now,
            );
        }
        self.emit(now, Event::Park { vcpu: claim, on });
    }

    /// After `cpu` took its claim, the next in each of its queues may deserve another CPU: two
    /// claims can come back from one CPU, a donor's and that of the vCPU it carried, and a kick
    /// meant for one claim may have served another.
    fn offer_next(&mut self, cpu: CpuId, now: Ns) {
        for domain in 0..self.domains.len() {
            let domain = &self.domains[domain];
            let Some((rank, next)) = domain.queue.first().filter(|_| domain.cpus.contains(cpu))
            else {
                continue;
            };
            let reserved = matches!(rank, Rank::Deadline(..));
            if reserved || !self.idle.is_empty() || !self.unsliced.is_empty() {
                self.preempt_for(VcpuId(next), now);
            }
        }
    }
}
