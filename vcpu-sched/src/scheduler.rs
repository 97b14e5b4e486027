//! The policy's state, and how vCPUs come and go. The rules are in their own files:
//!
//! | file | rule |
//! |---|---|
//! | `pick.rs` | what a CPU runs next |
//! | `proxy.rs` | which vCPU a waiting claim carries |
//! | `stop.rs` | what happens when it stops: charge, edges, back into the queue |
//! | `wake.rs` | waking |
//! | `timers.rs` | what happens by itself, and which CPU looks after it |
//! | `release.rs` | a holder lets go, or hands its mutex to a sleeper |
//! | `preempt.rs` | which CPU is kicked for a claim that became eligible |
//! | `defer.rs` | a holder that is out of time |
//! | `debt.rs` | which claim pays for what is done for a vCPU while it does not run |
//! | `worker.rs` | when, where and on which budget a guest's other threads work |
//! | `pool_cpus.rs` | CPUs that leave the pool and come back |
//! | `disturbance.rs` | wake-ups that take a CPU from a more urgent claim |

use std::cmp::Reverse;

use crate::classes::admission::{Admission, AdmissionError};
use crate::classes::cbs::Server;
use crate::classes::fair::FairShare;
use crate::classes::rank::Rank;
use crate::classes::reservation::SchedParams;
use crate::config::Config;
use crate::counters::Counters;
use crate::cpuset::{CpuSet, MAX_CPUS};
use crate::events::{Event, Events};
use crate::ids::{CpuId, GuestId, MAX_PINNINGS, MAX_VCPUS, Ns, VcpuId};
use crate::state::blocked_on::{BlockedOn, Hints};
use crate::state::contexts::{
    Cpu, ExecContext, ExecState, Running, ScState, SchedClass, SchedContext, VcpuState,
};
use crate::state::domain::Domain;
use crate::state::guest::Guest;
use crate::state::heap::Heap;
use crate::state::lists::Lists;
use crate::state::timer_queue::{Timers, sc_timer, wake_timer};
use crate::state::worker_table::WorkerTable;

/// The policy of one pool. All times that its methods take must not go back.
#[derive(Clone, Debug)]
pub struct Scheduler<E: Events = ()> {
    pub(crate) config: Config,
    pub(crate) all: CpuSet,
    /// Those that are not away.
    pub(crate) present: CpuSet,
    pub(crate) cpus: Vec<Cpu>,
    /// CPUs that run nothing: they sleep, or are about to pick.
    pub(crate) idle: CpuSet,
    /// CPUs that were kicked or are about to pick: they will look at everything by themselves.
    pub(crate) looking: CpuSet,
    /// CPUs that run something and have not been kicked, the least urgent claim first.
    pub(crate) busy: Heap<Reverse<Rank>>,
    /// CPUs that run a best-effort vCPU without a slice, because it was alone.
    pub(crate) unsliced: CpuSet,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) domains: Vec<Domain>,
    pub(crate) blocked_on: BlockedOn,
    /// Claims set aside, behind the vCPU that they wait for.
    pub(crate) parked: Lists,
    pub(crate) admission: Admission,
    /// CPUs that should look again, until [`Scheduler::take_kicks`].
    pub(crate) kicks: CpuSet,
    pub(crate) last_fifo_seq: u64,
    pub(crate) workers: WorkerTable,
    /// Told of each decision.
    pub events: E,
}

impl Scheduler<()> {
    /// An empty pool without a listener.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_events(config, ())
    }
}

impl<E: Events> Scheduler<E> {
    /// An empty pool. More than 128 CPUs count as 128, none as one.
    #[must_use]
    pub fn with_events(config: Config, events: E) -> Self {
        let cpus = config.cpus.clamp(1, MAX_CPUS);
        let all = CpuSet::first(cpus);
        let mut busy = Heap::new();
        busy.grow(cpus);
        Self {
            config: Config {
                cpus,
                slice_ns: config.slice_ns.max(1),
                ..config
            },
            all,
            present: all,
            cpus: vec![Cpu::default(); cpus],
            idle: CpuSet::EMPTY,
            looking: CpuSet::EMPTY,
            busy,
            unsliced: CpuSet::EMPTY,
            vcpus: Vec::new(),
            guests: Vec::new(),
            domains: Vec::new(),
            blocked_on: BlockedOn::default(),
            parked: Lists::default(),
            admission: Admission::new(config.cap_permille),
            kicks: CpuSet::EMPTY,
            last_fifo_seq: 0,
            workers: WorkerTable::default(),
            events,
        }
    }

    /// The pool's configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Adds a guest without vCPUs.
    pub fn add_guest(&mut self) -> GuestId {
        self.guests.push(Guest::default());
        GuestId(self.guests.len() as u32 - 1)
    }

    /// Adds a vCPU to `guest`, halted; [`Scheduler::wake`] starts it. `allowed` of `None` means
    /// every CPU of the pool.
    ///
    /// # Errors
    /// What cannot be guaranteed is refused, with what would fit.
    ///
    /// # Panics
    /// If `guest` was not made by [`Scheduler::add_guest`] of this pool.
    pub fn add_vcpu(
        &mut self,
        guest: GuestId,
        claim: SchedParams,
        allowed: Option<CpuSet>,
    ) -> Result<VcpuId, AdmissionError> {
        assert!(guest.index() < self.guests.len(), "a guest of this pool");
        let allowed = allowed.unwrap_or(self.all).and(self.all);
        if self.vcpus.len() >= MAX_VCPUS {
            return Err(AdmissionError::TooManyVcpus(MAX_VCPUS));
        }
        let Some(last_cpu) = allowed.lowest() else {
            return Err(AdmissionError::NoCpu);
        };
        let domain = self.domain(allowed)?;
        let class = match claim {
            SchedParams::Reserved(reservation) => {
                self.fits_on_present(&reservation, allowed)?;
                self.admission.take(&reservation, allowed, self.all)?;
                SchedClass::Deadline(Server::new(reservation))
            }
            SchedParams::BestEffort { weight } => SchedClass::Fair(FairShare::new(weight)),
        };
        self.vcpus.push(VcpuState {
            guest,
            sc: SchedContext {
                class,
                state: ScState::Off,
                fifo_seq: 0,
                throttled_since: 0,
                missed: 0,
                reduced_since: None,
            },
            ec: ExecContext {
                state: ExecState::Halted,
                allowed,
                domain,
                last_cpu,
                throttled: 0,
                wake_pending: false,
                ending: false,
                hints: Hints::default(),
                deferral: crate::state::deferral_credit::Credit::default(),
            },
            counters: Counters::default(),
        });
        let count = self.vcpus.len();
        self.blocked_on.grow(count);
        self.parked.grow(count);
        for domain in &mut self.domains {
            domain.queue.grow(count);
            domain.timers.grow(count);
        }
        let vcpu = VcpuId(count as u32 - 1);
        self.guests[guest.index()].vcpus.push(vcpu);
        Ok(vcpu)
    }

    /// The queue that serves exactly these CPUs.
    fn domain(&mut self, cpus: CpuSet) -> Result<usize, AdmissionError> {
        if let Some(at) = self.domains.iter().position(|domain| domain.own == cpus) {
            return Ok(at);
        }
        if self.domains.len() == MAX_PINNINGS {
            return Err(AdmissionError::TooManyPinnings(MAX_PINNINGS));
        }
        let mut queue = Heap::new();
        queue.grow(self.vcpus.len());
        self.domains.push(Domain {
            own: cpus,
            cpus: self.served_by(cpus),
            queue,
            timers: Timers::with_room_for(self.vcpus.len()),
            virtual_time: 0,
        });
        Ok(self.domains.len() - 1)
    }

    /// Takes a vCPU out for good; its reservation is free again. One that runs is kicked, and goes
    /// when it stops.
    pub fn remove(&mut self, vcpu: VcpuId, now: Ns) {
        let Some(v) = self.vcpus.get_mut(vcpu.index()) else {
            return;
        };
        match v.ec.state {
            ExecState::Gone => {}
            ExecState::Running(cpu) => {
                v.ec.ending = true;
                self.kick(cpu, now);
            }
            ExecState::Halted | ExecState::Runnable { .. } => {
                self.finish(vcpu, now);
                if let ScState::OnCpu(cpu) = self.vcpus[vcpu.index()].sc.state {
                    self.kick(cpu, now);
                }
            }
        }
    }

    /// The execution context is gone, and with it its claim, unless that pays on a CPU just now:
    /// then `stop.rs` ends it.
    pub(crate) fn finish(&mut self, vcpu: VcpuId, now: Ns) {
        if !matches!(self.vcpus[vcpu.index()].ec.state, ExecState::Halted) {
            self.count_runnable(vcpu, -1);
        }
        self.drop_edge(vcpu, now);
        self.clear_timer(wake_timer(vcpu));
        let v = &mut self.vcpus[vcpu.index()];
        v.end_wait(now);
        if v.sc.state == ScState::Throttled {
            v.end_throttling(now);
        }
        v.ec.state = ExecState::Gone;
        if let SchedClass::Deadline(server) = &v.sc.class {
            let allowed = v.ec.allowed;
            let reduced = v.sc.reduced_since.take();
            v.counters.reduced_ns += reduced.map_or(0, |since| now.saturating_sub(since));
            self.admission.give_back(server.promised(), allowed);
            if self.present != self.all {
                self.admit_again(now);
            }
        }
        if !matches!(self.vcpus[vcpu.index()].sc.state, ScState::OnCpu(_)) {
            self.dequeue(vcpu);
        }
        self.unpark_waiters(vcpu, now);
    }

    /// The counters of a vCPU, with its waits that are over; zeros for one that does not exist. See
    /// [`Scheduler::counters_at`].
    #[must_use]
    pub fn counters(&self, vcpu: VcpuId) -> Counters {
        self.vcpus
            .get(vcpu.index())
            .map(|v| v.counters)
            .unwrap_or_default()
    }

    /// The CPUs to kick: those whose decision may have been overtaken by what happened since the
    /// last call. Each should stop its vCPU, or wake up, and pick.
    pub fn take_kicks(&mut self) -> CpuSet {
        std::mem::replace(&mut self.kicks, CpuSet::EMPTY)
    }

    /// What `cpu` runs now, as (donor, run).
    #[must_use]
    pub fn running(&self, cpu: CpuId) -> Option<(VcpuId, VcpuId)> {
        let Running { donor, curr, .. } = self.cpus.get(cpu.index())?.running?;
        Some((donor, curr))
    }

    pub(crate) fn emit(&mut self, at: Ns, event: Event) {
        self.events.event(at, event);
    }

    pub(crate) fn count_runnable(&mut self, vcpu: VcpuId, change: i32) {
        let guest = &mut self.guests[self.vcpus[vcpu.index()].guest.index()];
        guest.runnable = guest.runnable.saturating_add_signed(change);
    }

    /// Puts a claim into the queue of the CPUs where the vCPU that it will carry may run.
    pub(crate) fn enqueue(&mut self, claim: VcpuId, domain: usize) {
        let sc = &mut self.vcpus[claim.index()].sc;
        debug_assert!(!matches!(sc.state, ScState::Queued(_) | ScState::Throttled));
        sc.state = ScState::Queued(domain);
        self.domains[domain].queue.set(claim.0, sc.rank());
    }

    /// Takes a claim out of wherever it waits.
    pub(crate) fn dequeue(&mut self, claim: VcpuId) {
        let sc = &mut self.vcpus[claim.index()].sc;
        match sc.state {
            ScState::Queued(domain) => {
                self.domains[domain].queue.remove(claim.0);
            }
            ScState::Parked(_) => {
                self.parked.leave(claim);
                self.clear_timer(sc_timer(claim));
            }
            ScState::Throttled => {
                self.clear_timer(sc_timer(claim));
            }
            ScState::Off | ScState::OnCpu(_) | ScState::Proxied => {}
        }
        self.vcpus[claim.index()].sc.state = ScState::Off;
    }

    /// A fresh place behind those with the same deadline or tag.
    pub(crate) fn to_back_of_equals(&mut self, claim: VcpuId) {
        self.last_fifo_seq += 1;
        self.vcpus[claim.index()].sc.fifo_seq = self.last_fifo_seq;
    }

    pub(crate) fn drop_edge(&mut self, waiter: VcpuId, now: Ns) {
        if self.blocked_on.drop_edge(waiter).is_none() {
            return;
        }
        self.emit(now, Event::EdgeOff(waiter));
        // A sleeper competes only for the one that it waits for.
        let queued = matches!(self.vcpus[waiter.index()].sc.state, ScState::Queued(_));
        if queued && !self.is_eligible(waiter) {
            self.dequeue(waiter);
        }
    }
}
