//! The state of a pool, and what changes it.

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::config::Config;
use crate::counting::Counting;
use crate::cpuset::{CpuSet, MAX_CPUS};
use crate::events::{Event, Events};
use crate::ids::{CpuId, GuestId, Ns, VcpuId, WorkerId};
use crate::rules::pick::Decision;
use crate::state::worker_table::{WorkerOrder, WorkerState};
use crate::table::Table;

/// What a CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CpuState {
    /// It sleeps.
    Idle,
    /// It has stopped a vCPU and is about to pick.
    Picking,
    /// It runs this vCPU; not `sliced` if no other waited for the CPU.
    Running { vcpu: VcpuId, sliced: bool },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) state: CpuState,
    /// It was kicked and has not picked since.
    pub(super) kicked: bool,
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Until it is woken, or until this time.
    Halted(Option<Ns>),
    /// It waits in the queue since this time.
    Runnable(Ns),
    Running(CpuId),
    /// It could run, but its guest is paused.
    Paused,
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct RoundRobinVcpu {
    pub(super) guest: GuestId,
    pub(super) allowed: CpuSet,
    pub(super) state: State,
    pub(super) last_cpu: Option<CpuId>,
    /// A wake-up came while it was not halted.
    pub(super) wake_pending: bool,
    /// It is to be removed when it stops.
    pub(super) ending: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RoundRobinGuest {
    pub(super) vcpus: Vec<VcpuId>,
    pub(super) paused: bool,
    pub(super) ending: bool,
}

#[derive(Clone, Debug)]
pub(super) struct RoundRobinWorker {
    pub(super) guest: GuestId,
    /// It waits only while its guest is paused.
    pub(super) state: WorkerState,
}

/// A pool of host CPUs that runs vCPUs in turn.
#[derive(Clone, Debug)]
pub struct RoundRobin<E: Events = ()> {
    pub(super) config: Config,
    /// CPUs that the pool has or can get.
    pub(super) places: CpuSet,
    /// Those that it has.
    pub(super) all: CpuSet,
    pub(super) online: CpuSet,
    pub(super) cpus: Table<CpuId, Cpu>,
    pub(super) vcpus: Table<VcpuId, RoundRobinVcpu>,
    pub(super) guests: Table<GuestId, RoundRobinGuest>,
    pub(super) queue: VecDeque<VcpuId>,
    pub(super) workers: Table<WorkerId, RoundRobinWorker>,
    pub(super) worker_orders: Vec<WorkerOrder>,
    pub(super) kicks: CpuSet,
    pub(super) counting: Counting,
    pub(super) events: E,
}

impl<E: Events> RoundRobin<E> {
    /// An empty pool. More than 128 CPUs count as 128, none as one.
    #[must_use]
    pub fn with_events(config: Config, events: E) -> Self {
        let cpus = config.cpus.clamp(1, MAX_CPUS);
        let places = CpuSet::first(cpus);
        let all = match places.minus(config.spare) {
            CpuSet::EMPTY => places,
            all => all,
        };
        let slice_ns = config.slice_ns.max(1);
        let idle = Cpu {
            state: CpuState::Idle,
            kicked: false,
        };
        Self {
            config: Config {
                cpus,
                slice_ns,
                // Guests need not report what is not used.
                proxy: false,
                defer_ns: None,
                ..config
            },
            places,
            all,
            online: all,
            cpus: Table::from_rows(vec![idle; cpus]),
            vcpus: Table::new(),
            guests: Table::new(),
            queue: VecDeque::new(),
            workers: Table::new(),
            worker_orders: Vec::new(),
            kicks: CpuSet::EMPTY,
            counting: Counting::new(cpus, config.spare),
            events,
        }
    }

    pub(super) fn emit(&mut self, at: Ns, event: Event) {
        self.counting.event(at, event);
        self.events.event(at, event);
    }

    pub(super) fn kick(&mut self, cpu: CpuId, now: Ns) {
        let state = &mut self.cpus[cpu];
        if !state.kicked {
            state.kicked = true;
            if state.state != CpuState::Picking {
                self.kicks.insert(cpu);
                self.emit(now, Event::Kick(cpu));
            }
        }
    }

    /// Where the vCPU may run now: if all its CPUs are offline, anywhere.
    pub(super) fn cpus_of(&self, vcpu: VcpuId) -> CpuSet {
        let own = self.vcpus[vcpu].allowed.and(self.online);
        if own.is_empty() { self.online } else { own }
    }

    /// To the end of the queue, unless its guest is paused.
    pub(super) fn enqueue(&mut self, vcpu: VcpuId, now: Ns) {
        if self.guests[self.vcpus[vcpu].guest].paused {
            self.vcpus[vcpu].state = State::Paused;
            return;
        }
        self.vcpus[vcpu].state = State::Runnable(now);
        self.queue.push_back(vcpu);
    }

    /// The first CPU that `vcpu` may use, was not kicked, and does what `fits` names; the one on which the vCPU
    /// ran last before others.
    pub(super) fn find_cpu(&self, vcpu: VcpuId, fits: fn(CpuState) -> bool) -> Option<CpuId> {
        let cpus = self.cpus_of(vcpu);
        let last = self.vcpus[vcpu].last_cpu;
        let last = last.filter(|&cpu| cpus.contains(cpu));
        let mut in_order = last.into_iter().chain(cpus.iter());
        in_order.find(|&cpu| fits(self.cpus[cpu].state) && !self.cpus[cpu].kicked)
    }

    pub(super) fn find_idle(&self, vcpu: VcpuId) -> Option<CpuId> {
        self.find_cpu(vcpu, |state| state == CpuState::Idle)
    }

    /// Called after a pick, for the vCPUs that it left in the queue: idle CPUs take them. CPUs that run
    /// something are not kicked. Otherwise two vCPUs that were stopped for each other would kick each other's
    /// CPUs for ever.
    pub(super) fn kick_idle(&mut self, now: Ns) {
        for place in 0..self.queue.len() {
            if let Some(cpu) = self.find_idle(self.queue[place]) {
                self.kick(cpu, now);
            }
        }
    }

    /// Wakes the vCPUs whose time has come.
    pub(super) fn fire_timers(&mut self, now: Ns) {
        for vcpu in self.vcpus.place_ids() {
            let state = self.vcpus.get(vcpu).map(|v| v.state);
            if matches!(state, Some(State::Halted(Some(at))) if at <= now) {
                self.wake_up(vcpu, now);
            }
        }
    }

    pub(super) fn end_wait(&mut self, vcpu: VcpuId, now: Ns) {
        if let State::Runnable(since) = self.vcpus[vcpu].state {
            self.counting.counters_mut(vcpu).waited_ns += now.saturating_sub(since);
        }
    }

    pub(super) fn finish(&mut self, vcpu: VcpuId, now: Ns) {
        self.end_wait(vcpu, now);
        self.queue.retain(|&queued| queued != vcpu);
        self.vcpus[vcpu].state = State::Gone;
    }

    /// Takes the first vCPU of the queue that may run on `cpu`.
    pub(super) fn take_first(&mut self, cpu: CpuId) -> Option<VcpuId> {
        let place =
            (0..self.queue.len()).find(|&place| self.cpus_of(self.queue[place]).contains(cpu))?;
        self.queue.remove(place)
    }

    /// A woken vCPU gets an idle CPU, or ends the run of a vCPU that was alone on its CPU.
    pub(super) fn wake_up(&mut self, vcpu: VcpuId, now: Ns) {
        self.emit(now, Event::Wake(vcpu));
        self.enqueue(vcpu, now);
        self.kick_for(vcpu, now);
    }

    /// A CPU for a vCPU that has come into the queue.
    pub(super) fn kick_for(&mut self, vcpu: VcpuId, now: Ns) {
        if !matches!(self.vcpus[vcpu].state, State::Runnable(_)) {
            return;
        }
        let alone = |state| matches!(state, CpuState::Running { sliced: false, .. });
        if let Some(cpu) = self.find_idle(vcpu).or_else(|| self.find_cpu(vcpu, alone)) {
            self.kick(cpu, now);
        }
    }

    /// Puts `curr` on `cpu`: for a slice if another vCPU waits for this CPU.
    pub(super) fn dispatch(&mut self, cpu: CpuId, curr: VcpuId, now: Ns) -> Decision {
        self.end_wait(curr, now);
        let vcpu = &mut self.vcpus[curr];
        (vcpu.state, vcpu.last_cpu) = (State::Running(cpu), Some(cpu));
        let sliced = self
            .queue
            .iter()
            .any(|&vcpu| self.cpus_of(vcpu).contains(cpu));
        self.cpus[cpu].state = CpuState::Running { vcpu: curr, sliced };
        let slice_end = sliced.then(|| now.saturating_add(self.config.slice_ns));
        let until = slice_end.into_iter().chain(self.next_wake()).min();
        let (donor, chain) = (curr, 0);
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
            lock: 0,
            may_wait: false,
            until_release: false,
        }
    }

    pub(super) fn workers_of(&self, guest: GuestId) -> impl Iterator<Item = WorkerId> {
        let all = self.workers.ids();
        all.filter(move |&worker| self.workers[worker].guest == guest)
    }

    /// The workers of `guest` that work are ordered to stop.
    pub(super) fn stop_workers(&mut self, guest: GuestId) {
        let working = self.workers_of(guest).filter(|&w| self.works(w));
        let orders: Vec<_> = working.map(WorkerOrder::Stop).collect();
        self.worker_orders.extend(orders);
    }

    pub(super) fn works(&self, worker: WorkerId) -> bool {
        matches!(self.workers[worker].state, WorkerState::Working { .. })
    }

    /// When the first halted vCPU wakes by itself.
    pub(super) fn next_wake(&self) -> Option<Ns> {
        let times = self.vcpus.iter().filter_map(|vcpu| match vcpu.state {
            State::Halted(at) => at,
            _ => None,
        });
        times.min()
    }

    /// The pool has other CPUs than before: every CPU looks at the queue.
    pub(super) fn cpus_changed(&mut self, now: Ns) {
        for cpu in self.online.iter() {
            self.kick(cpu, now);
        }
    }
}
