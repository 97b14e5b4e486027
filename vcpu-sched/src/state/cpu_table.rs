//! The host CPUs of a pool: what each does, and the sets that follow from that.
//!
//! ```text
//!             begin_pick                    start
//!   Inactive ───────────> Picking ──────────────────────> Running
//!      ^                   │ ^  ^                            │
//!      │ deactivate        │ │  └────────────────────────────┘
//!      └───────────────────┤ │ begin_pick        stop
//!                   sleep  v │
//!                          Idle
//! ```
//!
//! A CPU *needs to reschedule* from a kick until its next pick. Nothing else changes a CPU's state, so
//! the sets cannot disagree with it.

use std::cmp::Reverse;
use std::ops::Index;

use crate::classes::rank::Rank;
use crate::cpuset::CpuSet;
use crate::ids::{CpuId, CpuTime, Ns, VcpuId, WorkerId};
use crate::normal_form::{Normalise, Writer};
use crate::state::deferral_credit::Grounds;
use crate::state::heap::Heap;
use crate::table::Table;

/// A decision in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// The vCPU whose scheduling context is charged.
    pub(crate) donor: VcpuId,
    /// The vCPU that executes.
    pub(crate) curr: VcpuId,
    /// Since when, ns.
    pub(crate) since: Ns,
    /// When the decision ends, ns. A deferral moves that for the executor alone.
    pub(crate) until: Option<Ns>,
    /// When a vCPU that wakes may end the slice of a best-effort donor, ns.
    pub(crate) preemptible_at: Ns,
    /// The lock at the end of the chain that led from `donor` to `curr`.
    pub(crate) lock: u64,
    /// Whether `curr` is only suspected to hold what `donor` waits for.
    pub(crate) suspect: bool,
    /// On what the preemption of `curr` has been deferred, once already; `None`: it has not been.
    pub(crate) deferred: Option<Grounds>,
    /// The CPU was kicked for a best-effort vCPU that woke: the donor's slice ends with this decision.
    pub(crate) slice_ends: bool,
}

impl Running {
    /// For how long the decision has been in force at `now`.
    #[inline]
    pub(crate) const fn ran(&self, now: Ns) -> CpuTime {
        CpuTime::between(self.since, now)
    }
}

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CpuState {
    /// It takes no part in scheduling: it has never picked, or has picked nothing since it went offline.
    Inactive,
    /// It is about to pick. It counts as idle, and a kick needs no signal.
    Picking,
    /// It sleeps until this time, ns: the earliest timer when it last picked.
    Idle { until: Option<Ns> },
    /// It runs something.
    Running(Running),
}

/// A worker's grant on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrantOnCpu {
    pub(crate) worker: WorkerId,
    /// Since when, ns.
    pub(crate) since: Ns,
}

/// One host CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuRow {
    state: CpuState,
    /// It was kicked and has not picked since.
    need_resched: bool,
    /// The worker that has a grant here.
    pub(crate) grant: Option<GrantOnCpu>,
    /// The vCPU that stopped here before the pick under way, until that is done.
    pub(crate) just_stopped: Option<VcpuId>,
}

impl CpuRow {
    /// The decision in force.
    #[inline]
    pub(crate) const fn running(&self) -> Option<&Running> {
        match &self.state {
            CpuState::Running(running) => Some(running),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            CpuState::Running(running) => Some(running),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn needs_resched(&self) -> bool {
        self.need_resched
    }

    /// Whether it will pick without another kick.
    #[inline]
    pub(crate) const fn will_pick(&self) -> bool {
        self.need_resched || matches!(self.state, CpuState::Picking)
    }

    /// When it wakes up by itself, for a CPU that sleeps and has not been kicked.
    #[inline]
    pub(crate) const fn asleep(&self) -> Option<Option<Ns>> {
        match self.state {
            CpuState::Idle { until } if !self.need_resched => Some(until),
            _ => None,
        }
    }
}

/// All host CPUs of a pool.
#[derive(Clone, Debug)]
pub(crate) struct CpuTable {
    rows: Table<CpuId, CpuRow>,
    /// Those that the pool has or can get.
    places: CpuSet,
    /// Those that it has.
    all: CpuSet,
    online: CpuSet,
    /// Online CPUs that run nothing: they sleep, or are about to pick.
    idle: CpuSet,
    /// CPUs for which [`CpuRow::will_pick`] holds.
    will_pick: CpuSet,
    /// CPUs that run something and have not been kicked, the least urgent rank first.
    busy: Heap<Reverse<Rank>>,
    /// CPUs that run a best-effort vCPU without a slice, because nothing else competed.
    unsliced: CpuSet,
    /// CPUs that have to be signalled: see [`CpuTable::take_kicks`].
    kicks: CpuSet,
}

impl CpuTable {
    /// `count` CPUs, all online but those in `spare`, which the pool does not have; none has picked yet.
    pub(crate) fn new(count: usize, spare: CpuSet) -> Self {
        let places = CpuSet::first(count);
        let all = match places.minus(spare) {
            CpuSet::EMPTY => places,
            all => all,
        };
        let mut busy = Heap::new();
        busy.grow(count);
        let row = CpuRow {
            state: CpuState::Inactive,
            need_resched: false,
            grant: None,
            just_stopped: None,
        };
        Self {
            rows: Table::from_rows(vec![row; count]),
            places,
            all,
            online: all,
            idle: CpuSet::EMPTY,
            will_pick: CpuSet::EMPTY,
            busy,
            unsliced: CpuSet::EMPTY,
            kicks: CpuSet::EMPTY,
        }
    }

    #[inline]
    pub(crate) fn row_mut(&mut self, cpu: CpuId) -> &mut CpuRow {
        &mut self.rows[cpu]
    }

    #[inline]
    pub(crate) fn ids(&self) -> impl Iterator<Item = CpuId> + use<> {
        self.rows.place_ids()
    }

    /// The decision in force on `cpu`; `None` also for a CPU that is not of the pool.
    #[inline]
    pub(crate) fn running(&self, cpu: CpuId) -> Option<&Running> {
        self.rows.get(cpu)?.running()
    }

    #[inline]
    pub(crate) fn running_mut(&mut self, cpu: CpuId) -> Option<&mut Running> {
        self.rows.get_mut(cpu)?.running_mut()
    }

    #[inline]
    pub(crate) const fn all(&self) -> CpuSet {
        self.all
    }

    /// The CPUs that the pool has or can get.
    #[inline]
    pub(crate) const fn places(&self) -> CpuSet {
        self.places
    }

    #[inline]
    pub(crate) const fn online(&self) -> CpuSet {
        self.online
    }

    #[inline]
    pub(crate) const fn idle(&self) -> CpuSet {
        self.idle
    }

    #[inline]
    pub(crate) const fn unsliced(&self) -> CpuSet {
        self.unsliced
    }

    /// Whether some CPU picks without another kick.
    #[inline]
    pub(crate) const fn any_will_pick(&self) -> bool {
        !self.will_pick.is_empty()
    }

    /// `cpu` begins to pick.
    #[inline]
    pub(crate) fn begin_pick(&mut self, cpu: CpuId) {
        self.rows[cpu].state = CpuState::Picking;
        self.will_pick.insert(cpu);
        if self.online.contains(cpu) {
            self.idle.insert(cpu);
        }
    }

    /// The pick of `cpu` ends with a decision. Without a `slice` it runs until something else competes.
    #[inline]
    pub(crate) fn start(&mut self, cpu: CpuId, running: Running, rank: Rank, slice: bool) {
        self.end_pick(cpu, CpuState::Running(running));
        self.idle.remove(cpu);
        self.busy.set(cpu.0, Reverse(rank));
        if !slice {
            self.unsliced.insert(cpu);
        }
    }

    /// The pick of `cpu` ends with nothing to run: it sleeps until `until`, ns, or a kick.
    #[inline]
    pub(crate) fn sleep(&mut self, cpu: CpuId, until: Option<Ns>) {
        self.end_pick(cpu, CpuState::Idle { until });
    }

    /// `cpu`, which is offline, has picked nothing.
    #[inline]
    pub(crate) fn deactivate(&mut self, cpu: CpuId) {
        self.end_pick(cpu, CpuState::Inactive);
        self.idle.remove(cpu);
    }

    #[inline]
    fn end_pick(&mut self, cpu: CpuId, state: CpuState) {
        let row = &mut self.rows[cpu];
        (row.state, row.need_resched) = (state, false);
        self.will_pick.remove(cpu);
        self.kicks.remove(cpu);
    }

    /// `cpu` stops what it runs and is about to pick. `None`, and nothing changes, if it runs nothing or
    /// is not of the pool.
    #[inline]
    pub(crate) fn stop(&mut self, cpu: CpuId) -> Option<Running> {
        let running = *self.running(cpu)?;
        self.begin_pick(cpu);
        self.unsliced.remove(cpu);
        self.busy.remove(cpu.0);
        Some(running)
    }

    /// `cpu` needs to reschedule. True if it has to be signalled: it had not been kicked before, and is
    /// not about to pick.
    #[inline]
    pub(crate) fn kick(&mut self, cpu: CpuId) -> bool {
        let row = &mut self.rows[cpu];
        if row.need_resched {
            return false;
        }
        row.need_resched = true;
        let signal = !matches!(row.state, CpuState::Picking);
        self.will_pick.insert(cpu);
        self.busy.remove(cpu.0);
        if signal {
            self.kicks.insert(cpu);
        }
        signal
    }

    /// The CPUs to signal since the last call.
    #[inline]
    pub(crate) const fn take_kicks(&mut self) -> CpuSet {
        std::mem::replace(&mut self.kicks, CpuSet::EMPTY)
    }

    /// The pool gets `cpu`, which is online.
    pub(crate) fn add(&mut self, cpu: CpuId) {
        self.all.insert(cpu);
        self.set_online(cpu);
    }

    /// The pool gives `cpu` up.
    pub(crate) fn remove(&mut self, cpu: CpuId) {
        self.all.remove(cpu);
        self.set_offline(cpu);
    }

    pub(crate) fn set_offline(&mut self, cpu: CpuId) {
        self.online.remove(cpu);
        self.idle.remove(cpu);
    }

    pub(crate) fn set_online(&mut self, cpu: CpuId) {
        self.online.insert(cpu);
        if self.rows[cpu].running().is_none() {
            self.idle.insert(cpu);
        }
    }

    /// The rank of the donor on `cpu` has changed. False if that is of no consequence, because the CPU
    /// runs nothing or has been kicked.
    #[inline]
    pub(crate) fn set_rank(&mut self, cpu: CpuId, rank: Rank) -> bool {
        let is_busy = self.busy.contains(cpu.0);
        if is_busy {
            self.busy.set(cpu.0, Reverse(rank));
        }
        is_busy
    }

    /// The CPU among `cpus` that does the least urgent work and has not been kicked.
    #[inline]
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

    /// The rank with which `cpu` is among those that can be kicked for a more urgent one, for checks.
    pub(crate) fn busy_rank(&self, cpu: CpuId) -> Option<Rank> {
        self.busy.key(cpu.0).map(|Reverse(rank)| rank)
    }

    /// Panics if a set disagrees with the states. For debug builds.
    pub(crate) fn check(&self) {
        assert!(self.online.is_subset(self.all) && self.all.is_subset(self.places));
        for cpu in self.ids() {
            let row = &self.rows[cpu];
            let runs = row.running().is_some();
            assert_eq!(
                self.busy.contains(cpu.0),
                runs && !row.need_resched,
                "{cpu} can be kicked for a more urgent vCPU while it runs and has not been kicked"
            );
            assert_eq!(self.will_pick.contains(cpu), row.will_pick(), "{cpu}");
            assert!(!runs || !self.idle.contains(cpu), "{cpu} is busy");
            assert!(!self.idle.contains(cpu) || self.online.contains(cpu));
            assert!(runs || !self.unsliced.contains(cpu), "{cpu} runs no slice");
        }
    }
}

impl Index<CpuId> for CpuTable {
    type Output = CpuRow;

    #[inline]
    fn index(&self, cpu: CpuId) -> &CpuRow {
        &self.rows[cpu]
    }
}

impl Normalise for Running {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            donor,
            curr,
            since,
            until,
            preemptible_at,
            lock,
            suspect,
            deferred,
            slice_ends,
        } = self;
        to.vcpu(donor);
        to.vcpu(curr);
        to.time(since);
        to.option(until, Writer::time);
        to.future(preemptible_at);
        to.number(lock);
        to.flag(suspect);
        to.option(deferred, |to, on| to.flag(on == Grounds::Guess));
        to.flag(slice_ends);
    }
}

impl Normalise for CpuRow {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            state,
            need_resched,
            grant,
            just_stopped,
        } = self;
        match state {
            CpuState::Inactive => to.number(0_u8),
            CpuState::Picking => to.number(1_u8),
            CpuState::Idle { until } => {
                to.number(2_u8);
                to.option(*until, Writer::time);
            }
            CpuState::Running(running) => {
                to.number(3_u8);
                to.part(running);
            }
        }
        to.flag(*need_resched);
        to.option(*grant, |to, GrantOnCpu { worker, since }| {
            to.number(worker.0);
            to.time(since);
        });
        to.option(*just_stopped, Writer::vcpu);
    }
}

impl Normalise for CpuTable {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            rows,
            // Never changes.
            places: _,
            all,
            online,
            idle,
            // Both follow from the rows.
            will_pick: _,
            busy: _,
            unsliced,
            kicks,
        } = self;
        for row in rows.iter() {
            to.part(row);
        }
        for set in [all, online, idle, unsliced, kicks] {
            to.cpus(*set);
        }
    }
}
