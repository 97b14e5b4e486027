//! What a CPU runs next: the most urgent scheduling context that it may serve, and the vCPU that this one
//! carries.

use crate::classes::virtual_time::VirtualTime;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::proxy::Proxy;
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::cpu_table::Running;

/// What to run, on whose budget, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The vCPU whose scheduling context is charged.
    pub donor: VcpuId,
    /// The vCPU whose execution context runs.
    pub curr: VcpuId,
    /// When the decision ends, ns; `None`: not before something happens.
    pub until: Option<Ns>,
    /// Edges from `donor` to `curr`; 0 when the donor runs itself.
    pub chain: u32,
    /// The lock that the last edge names; meaningful when `chain` > 0 and `curr` is no suspect.
    pub lock: u64,
    /// By the host's guesses, a vCPU is off the CPUs that may hold what `curr` comes to wait for, in a guest whose
    /// vCPUs spin for each other.
    pub may_wait: bool,
    /// `curr` runs only until it is seen to hold nothing or to spin: it is suspected to hold a lock for which
    /// others of its guest wait, or spun itself when it was stopped. It will not ring.
    pub until_release: bool,
}

impl Decision {
    /// Whether the donor carries another vCPU.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.donor != self.curr
    }
}

/// A donor, and the vCPU at the end of the chain that begins with it.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    donor: VcpuId,
    curr: VcpuId,
    chain: u32,
    lock: u64,
    /// Whether the last edge of the chain is a guess of the policy.
    suspect: bool,
}

impl<E: Events> Scheduler<E> {
    /// Decides what `cpu` runs. It must have stopped what it ran before ([`Scheduler::stop`]).
    /// `None`: nothing; it may sleep until it is kicked or until [`Scheduler::next_timer`].
    ///
    /// O(log n) for n vCPUs, plus a chain of at most [`crate::MAX_CHAIN`] edges for each scheduling context
    /// that is tried, plus, where hints are guesses, the vCPUs of its guest, and plus the timers of
    /// reservations that come before the end of the decision and cannot matter to it, which are passed over
    /// one by one. A scheduling context that cannot be served is set aside and comes back by an event of its
    /// own guest, which is charged for causing it.
    ///
    /// # Panics
    /// If `cpu` is not of this pool.
    pub fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        debug_assert!(
            self.cpus[cpu].running().is_none(),
            "{cpu} stopped before it picks"
        );
        if !self.cpus.online().contains(cpu) {
            self.pick_nothing(cpu, now);
            return None;
        }
        self.count_late_awakening(cpu, now);
        self.cpus.begin_pick(cpu);
        self.fire_timers(now);
        let decision = self.decide(cpu, now);
        if decision.is_none() {
            self.cpus.sleep(cpu, self.next_timer());
            self.emit(now, Event::Idle { cpu });
        }
        if let Some(stopped) = self.cpus.row_mut(cpu).just_stopped.take() {
            self.unpark_waiters(stopped, now);
        }
        self.kick_for_next(cpu, now);
        if decision.is_some() {
            self.find_timekeepers(now);
        }
        self.serve_workers(cpu, now);
        self.check();
        decision
    }

    /// Goes through the scheduling contexts in order until one can be served.
    fn decide(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        while let Some(donor) = self.most_urgent(cpu) {
            self.refresh_suspicion(donor, now);
            match self.find_proxy(donor, cpu, now) {
                Proxy::Run {
                    curr,
                    chain,
                    lock,
                    suspect,
                } => {
                    let chosen = Chosen {
                        donor,
                        curr,
                        chain,
                        lock,
                        suspect,
                    };
                    return Some(self.dispatch(cpu, chosen, now));
                }
                Proxy::Park { on } => self.park(donor, on, now),
                Proxy::Move { to } => {
                    self.dequeue(donor);
                    self.enqueue(donor, self.vcpus[to].ec.domain);
                    self.kick_for(donor, now);
                }
                Proxy::Off => {
                    self.settle_deadlines(donor, now);
                    self.dequeue(donor);
                }
            }
        }
        None
    }

    /// The most urgent scheduling context in the queues that `cpu` serves.
    fn most_urgent(&self, cpu: CpuId) -> Option<VcpuId> {
        let domains = self.domains.iter();
        let queues = domains.filter(|domain| domain.cpus.contains(cpu));
        let (_, first) = queues.filter_map(|domain| domain.queue.first()).min()?;
        Some(first)
    }

    /// Puts a vCPU on `cpu`, on the scheduling context of its donor.
    fn dispatch(&mut self, cpu: CpuId, chosen: Chosen, now: Ns) -> Decision {
        let Chosen {
            donor,
            curr,
            chain,
            lock,
            suspect,
        } = chosen;
        let may_wait = self.is_contended(curr) && self.may_wait(curr);
        let until_release = suspect || (donor == curr && self.queues_with_others(curr));
        self.dequeue(donor);
        self.vcpus[donor].sc.state = ScState::OnCpu(cpu);
        if curr != donor {
            self.proxy_own_context(curr, now);
        }
        self.settle_deadlines(donor, now);
        self.start_execution(cpu, curr, now);
        let until = self.start_slice(cpu, &chosen, now);
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
            may_wait,
            until_release,
        }
    }

    /// `curr` runs on another vCPU's scheduling context. Its own need not compete meanwhile.
    fn proxy_own_context(&mut self, curr: VcpuId, now: Ns) {
        if let ScState::Queued(_) | ScState::Parked(_) = self.vcpus[curr].sc.state {
            self.settle_deadlines(curr, now);
            self.dequeue(curr);
            self.vcpus[curr].sc.state = ScState::Proxied;
        }
    }

    fn start_execution(&mut self, cpu: CpuId, curr: VcpuId, now: Ns) {
        // A vCPU that runs publishes anew for which vCPU it waits.
        self.drop_edge(curr, now);
        self.end_wait(curr, now);
        let ec = &mut self.vcpus[curr].ec;
        (ec.state, ec.last_cpu) = (ExecState::Running(cpu), cpu);
    }

    /// The decision is in force. Returns when it ends.
    fn start_slice(&mut self, cpu: CpuId, chosen: &Chosen, now: Ns) -> Option<Ns> {
        let &Chosen { donor, curr, .. } = chosen;
        if let Some(tag) = self.vcpus[donor].sc.class.tag() {
            self.advance_virtual_time(cpu, tag);
        }
        let (sc, slice) = (&self.vcpus[donor].sc, self.config.slice_ns);
        // Alone, a best-effort vCPU needs no end of a slice. What competes later kicks the CPU.
        let contended = || self.most_urgent(cpu).is_some() || self.workers.any_waits();
        let own_end = sc.class.decision_end(now, slice, contended);
        let preemptible_at = sc.class.preemptible_at(now, slice);
        let rank = sc.rank();
        let until = match self.timer_for(cpu, donor, preemptible_at, own_end) {
            Some(timer) if !self.idle_cpu_keeps(timer, now) => Some(timer),
            _ => own_end,
        };
        let running = Running {
            donor,
            curr,
            since: now,
            until,
            preemptible_at,
            lock: chosen.lock,
            suspect: chosen.suspect,
            deferred: None,
            slice_ends: false,
        };
        self.cpus.start(cpu, running, rank, own_end.is_some());
        until
    }

    /// Advances the virtual time of every queue that `cpu` serves to at least `tag`, where the slice under
    /// way began. A vCPU that joined with an older virtual time would keep the CPU until it had caught up.
    pub(crate) fn advance_virtual_time(&mut self, cpu: CpuId, tag: VirtualTime) {
        let domains = self.domains.iter_mut();
        for domain in domains.filter(|domain| domain.cpus.contains(cpu)) {
            domain.virtual_time = domain.virtual_time.max(tag);
        }
    }
}
