//! The policy's state, and how guests and vCPUs are added. The rules are in their own files:
//!
//! | file | rule |
//! |---|---|
//! | `proxy.rs` | which vCPU runs on the scheduling context of a vCPU that waits |
//! | `rules/pick.rs` | what a CPU runs next |
//! | `rules/stop.rs` | what happens when a vCPU stops: charge, edges, back into the queue |
//! | `rules/charge.rs` | the donor is charged for what ran; throttling and replenishment |
//! | `rules/wake.rs` | waking |
//! | `rules/kick.rs` | which CPU is kicked for a scheduling context that became eligible |
//! | `rules/timers.rs` | what happens by itself, and which CPU is the timekeeper |
//! | `rules/edges.rs` | which edges of the `blocked_on` graph count |
//! | `rules/visit.rs` | scheduling contexts in the queue of the CPUs of a holder |
//! | `rules/park.rs` | scheduling contexts that wait aside for a vCPU |
//! | `rules/contention.rs` | whether the vCPUs of a guest spin for each other |
//! | `rules/suspect.rs` | for which vCPU one waits that spins for an unknown holder |
//! | `rules/release.rs` | a holder lets go, or hands its lock to a waiter |
//! | `rules/defer.rs` | a holder that is out of time |
//! | `rules/debt.rs` | what is charged for a vCPU that does not run |
//! | `rules/lead.rs` | what the next guest of a user owes who has had more than others |
//! | `rules/worker.rs` | when, where and on which budget a guest's other threads work |
//! | `rules/hotplug.rs` | CPUs that go offline and online |
//! | `rules/pool_cpus.rs` | CPUs that the pool gets and gives up |
//! | `rules/disturbance.rs` | wake-ups that take a CPU from a more urgent vCPU |
//! | `rules/waiting.rs` | how waits are counted |
//! | `rules/delivery.rs` | what was promised, delivered and lost, and which deadlines were missed |
//! | `rules/removal.rs` | the end of a vCPU, and of a guest |
//! | `rules/change.rs` | another reservation, another weight, other CPUs for a vCPU that exists |
//! | `rules/pause.rs` | guests that are paused |
//! | `rules/pinning.rs` | which domain serves a pinning |

use crate::classes::admission::{Admission, AdmissionError};
use crate::classes::fair::FairInputs;
use crate::classes::reservation::SchedParams;
use crate::classes::sched_class::{Activity, SchedClass};
use crate::config::Config;
use crate::counting::Counting;
use crate::cpuset::{CpuSet, MAX_CPUS};
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, DomainId, GuestId, MAX_VCPUS, Ns, VcpuId};
use crate::state::blocked_on::BlockedOn;
use crate::state::contexts::{ScState, VcpuState};
use crate::state::cpu_table::{CpuTable, Running};
use crate::state::domain::Domain;
use crate::state::guest::GuestState;
use crate::state::lists::Lists;
use crate::state::timer_queue::TimerId;
use crate::state::worker_table::WorkerTable;
use crate::table::Table;

/// The policy of one pool. The times that its methods take must not go back.
#[derive(Clone, Debug)]
pub struct Scheduler<E: Events = ()> {
    pub(crate) config: Config,
    pub(crate) cpus: CpuTable,
    pub(crate) vcpus: Table<VcpuId, VcpuState>,
    pub(crate) guests: Table<GuestId, GuestState>,
    pub(crate) domains: Table<DomainId, Domain>,
    pub(crate) blocked_on: BlockedOn,
    /// Scheduling contexts set aside, behind the vCPU that they wait for.
    pub(crate) parked: Lists,
    pub(crate) admission: Admission,
    pub(crate) workers: WorkerTable,
    pub(crate) counting: Counting,
    last_fifo_seq: u64,
    last_added_seq: u64,
    /// The listener, which is called for each decision.
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
        Self {
            config: Config {
                cpus,
                slice_ns: config.slice_ns.max(1),
                ..config
            },
            cpus: CpuTable::new(cpus, config.spare),
            vcpus: Table::new(),
            guests: Table::new(),
            domains: Table::new(),
            blocked_on: BlockedOn::default(),
            parked: Lists::default(),
            admission: Admission::new(config.cap_permille),
            workers: WorkerTable::new(),
            counting: Counting::new(cpus, config.spare),
            last_fifo_seq: 0,
            last_added_seq: 0,
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
        self.last_added_seq += 1;
        self.guests.add(GuestState {
            added_seq: self.last_added_seq,
            ..GuestState::default()
        })
    }

    /// Adds a vCPU to `guest`, halted; [`Scheduler::wake`] starts it. `allowed` of `None` means
    /// every CPU of the pool, and may name CPUs that the pool can get. Bandwidth that is held counts as taken: see [`Scheduler::free_held_bandwidth`].
    ///
    /// # Errors
    /// The reservation cannot be guaranteed, or a limit of the pool is reached. The error names what would
    /// fit.
    ///
    /// # Panics
    /// If `guest` was not made by [`Scheduler::add_guest`] of this pool, or has been removed.
    pub fn add_vcpu(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        allowed: Option<CpuSet>,
    ) -> Result<VcpuId, AdmissionError> {
        let known = self.guests.get(guest);
        assert!(known.is_some_and(|g| !g.ending), "a guest of this pool");
        let all = self.cpus.all();
        let allowed = self.pinning_to(allowed);
        if self.vcpus.len() >= MAX_VCPUS {
            return Err(AdmissionError::TooManyVcpus(MAX_VCPUS));
        }
        let Some(last_cpu) = allowed.and(all).lowest() else {
            return Err(AdmissionError::NoCpu);
        };
        self.has_room_for_pinning(allowed)?;
        if let SchedParams::Reserved(reservation) = &params {
            self.fits_on_online(None, reservation, allowed)?;
            self.admission.take(reservation, allowed, all)?;
        }
        let domain = self.join_domain(allowed);
        let class = SchedClass::new(params);
        let vcpu = VcpuState::new(guest, class, allowed, domain, last_cpu);
        let vcpu = self.vcpus.add(vcpu);
        self.counting.add_vcpu(vcpu);
        self.guests[guest].vcpus.push(vcpu);
        self.make_room();
        Ok(vcpu)
    }

    /// Makes room for all vCPUs in the tables, so that scheduling needs no memory.
    fn make_room(&mut self) {
        let count = self.vcpus.places();
        self.blocked_on.grow(count);
        self.parked.grow(count);
        for domain in self.domains.iter_mut() {
            domain.queue.grow(count);
            domain.timers.grow(count);
        }
    }

    /// The CPUs to kick: those whose decision may have been overtaken by what happened since the last
    /// call. Each should stop its vCPU, or wake up, and pick.
    pub fn take_kicks(&mut self) -> CpuSet {
        self.cpus.take_kicks()
    }

    /// What `cpu` runs now, as (donor, curr).
    #[must_use]
    pub fn running(&self, cpu: CpuId) -> Option<(VcpuId, VcpuId)> {
        let &Running { donor, curr, .. } = self.cpus.running(cpu)?;
        Some((donor, curr))
    }

    pub(crate) fn emit(&mut self, at: Ns, event: Event) {
        self.counting.event(at, event);
        self.events.event(at, event);
    }

    /// Whether `other` exists and is of the same guest as `vcpu`.
    pub(crate) fn same_guest(&self, vcpu: VcpuId, other: VcpuId) -> bool {
        let guest = self.vcpus.get(other).map(|v| v.guest);
        guest == Some(self.vcpus[vcpu].guest)
    }

    /// The runnable vCPUs of the guest of `vcpu`: they divide its weight.
    pub(crate) fn sharers(&self, vcpu: VcpuId) -> u32 {
        self.guests[self.vcpus[vcpu].guest].runnable
    }

    pub(crate) fn count_runnable(&mut self, vcpu: VcpuId, change: i32) {
        let guest = &mut self.guests[self.vcpus[vcpu].guest];
        guest.runnable = guest.runnable.saturating_add_signed(change);
    }

    /// What the fair order of `vcpu` depends on.
    pub(crate) fn fair_inputs(&self, vcpu: VcpuId) -> FairInputs {
        FairInputs {
            slice: self.config.slice_ns,
            sharers: self.sharers(vcpu),
            virtual_time: self.domains[self.vcpus[vcpu].ec.domain].virtual_time,
        }
    }

    /// What the scheduling context of `vcpu` does, as far as its class is concerned.
    pub(crate) fn activity(&self, vcpu: VcpuId, now: Ns) -> Activity {
        match self.vcpus[vcpu].sc.state {
            ScState::Off => Activity::Idle,
            ScState::Queued(_) | ScState::Parked(_) | ScState::Proxied => Activity::Competing,
            ScState::OnCpu(cpu) => {
                let running = self.cpus.running(cpu);
                Activity::Donating {
                    uncharged: running.map_or(CpuTime::ZERO, |running| running.ran(now)),
                }
            }
            ScState::Throttled => Activity::Throttled,
        }
    }

    /// Puts a scheduling context into the queue of the CPUs where the vCPU that it will carry may run.
    pub(crate) fn enqueue(&mut self, vcpu: VcpuId, domain: DomainId) {
        let sc = &mut self.vcpus[vcpu].sc;
        debug_assert!(!matches!(sc.state, ScState::Queued(_) | ScState::Throttled));
        sc.state = ScState::Queued(domain);
        self.domains[domain].queue.set(vcpu, sc.rank());
    }

    /// Takes a scheduling context out of wherever it waits.
    pub(crate) fn dequeue(&mut self, vcpu: VcpuId) {
        match self.vcpus[vcpu].sc.state {
            ScState::Queued(domain) => self.domains[domain].queue.remove(vcpu),
            ScState::Parked(_) => {
                self.parked.leave(vcpu);
                self.clear_timer(TimerId::Sc(vcpu));
            }
            ScState::Throttled => self.clear_timer(TimerId::Sc(vcpu)),
            ScState::Off | ScState::OnCpu(_) | ScState::Proxied => {}
        }
        self.vcpus[vcpu].sc.state = ScState::Off;
    }

    /// Gives a scheduling context a fresh place behind those with the same deadline or tag.
    pub(crate) fn move_behind_equals(&mut self, vcpu: VcpuId) {
        self.last_fifo_seq += 1;
        self.vcpus[vcpu].sc.fifo_seq = self.last_fifo_seq;
    }
}
