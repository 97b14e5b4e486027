//! Round robin: one queue, equal slices, no reservations, no hints. Not for use, but for comparison: the
//! difference to [`Scheduler`] is what deadlines, shares and proxy execution are worth.
//!
//! A vCPU that becomes runnable goes to the end of the queue. A CPU takes the first vCPU of the queue that may
//! run there, for a slice if others wait for that CPU, or until one of them comes. Guests are not told apart, so
//! one with more vCPUs gets more.
//!
//! [`Scheduler`]: crate::Scheduler

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::classes::admission::AdmissionError;
use crate::classes::reservation::SchedParams;
use crate::config::Config;
use crate::counters::Counters;
use crate::counting::Counting;
use crate::cpuset::{CpuSet, MAX_CPUS};
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, GuestId, MAX_VCPUS, Ns, VcpuId, WorkerId};
use crate::policy::Policy;
use crate::rules::pick::Decision;
use crate::rules::stop::StopReason;
use crate::state::blocked_on::Hints;
use crate::state::worker_table::{Grant, WorkerOrder};
use crate::table::Table;
use crate::view::{CpuView, Doing, VcpuView};

/// CPU time of a worker's grant, ns.
const GRANT_NS: Ns = 250_000;

/// What a CPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CpuState {
    /// It sleeps.
    Idle,
    /// It has stopped a vCPU and is about to pick.
    Picks,
    /// It runs this vCPU; not `sliced` if no other waited for the CPU.
    Runs { vcpu: VcpuId, sliced: bool },
}

#[derive(Clone, Copy, Debug)]
struct Cpu {
    state: CpuState,
    /// It was kicked and has not picked since.
    kicked: bool,
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until it is woken, or until this time.
    Halted(Option<Ns>),
    /// It waits in the queue since this time.
    Runnable(Ns),
    Running(CpuId),
    Gone,
}

#[derive(Clone, Debug)]
struct RoundRobinVcpu {
    allowed: CpuSet,
    state: State,
    last_cpu: Option<CpuId>,
    /// A wake-up came while it was not halted.
    wake_pending: bool,
    /// It is to be removed when it stops.
    ending: bool,
}

#[derive(Clone, Debug)]
struct RoundRobinWorker {
    guest: GuestId,
    /// It waits for its grant, or works.
    busy: bool,
}

/// A pool of host CPUs that runs vCPUs in turn.
#[derive(Clone, Debug)]
pub struct RoundRobin<E: Events = ()> {
    config: Config,
    all: CpuSet,
    online: CpuSet,
    cpus: Table<CpuId, Cpu>,
    vcpus: Table<VcpuId, RoundRobinVcpu>,
    /// The vCPUs of each guest.
    guests: Table<GuestId, Vec<VcpuId>>,
    queue: VecDeque<VcpuId>,
    workers: Table<WorkerId, RoundRobinWorker>,
    worker_orders: Vec<WorkerOrder>,
    kicks: CpuSet,
    counting: Counting,
    events: E,
}

impl<E: Events> RoundRobin<E> {
    /// An empty pool. More than 128 CPUs count as 128, none as one.
    #[must_use]
    pub fn with_events(config: Config, events: E) -> Self {
        let cpus = config.cpus.clamp(1, MAX_CPUS);
        let all = CpuSet::first(cpus);
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
            all,
            online: all,
            cpus: Table::from_rows(vec![idle; cpus]),
            vcpus: Table::new(),
            guests: Table::new(),
            queue: VecDeque::new(),
            workers: Table::new(),
            worker_orders: Vec::new(),
            kicks: CpuSet::EMPTY,
            counting: Counting::new(cpus),
            events,
        }
    }

    fn emit(&mut self, at: Ns, event: Event) {
        self.counting.event(at, event);
        self.events.event(at, event);
    }

    fn kick(&mut self, cpu: CpuId, now: Ns) {
        let state = &mut self.cpus[cpu];
        if !state.kicked {
            state.kicked = true;
            if state.state != CpuState::Picks {
                self.kicks.insert(cpu);
                self.emit(now, Event::Kick(cpu));
            }
        }
    }

    /// Where the vCPU may run now: if all its CPUs are offline, anywhere.
    fn cpus_of(&self, vcpu: VcpuId) -> CpuSet {
        let own = self.vcpus[vcpu].allowed.and(self.online);
        if own.is_empty() { self.online } else { own }
    }

    /// To the end of the queue.
    fn enqueue(&mut self, vcpu: VcpuId, now: Ns) {
        self.vcpus[vcpu].state = State::Runnable(now);
        self.queue.push_back(vcpu);
    }

    /// The first CPU that `vcpu` may use, was not kicked, and does what `fits` names; the one on which the vCPU
    /// ran last before others.
    fn find_cpu(&self, vcpu: VcpuId, fits: fn(CpuState) -> bool) -> Option<CpuId> {
        let cpus = self.cpus_of(vcpu);
        let last = self.vcpus[vcpu].last_cpu;
        let last = last.filter(|&cpu| cpus.contains(cpu));
        let mut in_order = last.into_iter().chain(cpus.iter());
        in_order.find(|&cpu| fits(self.cpus[cpu].state) && !self.cpus[cpu].kicked)
    }

    fn find_idle(&self, vcpu: VcpuId) -> Option<CpuId> {
        self.find_cpu(vcpu, |state| state == CpuState::Idle)
    }

    /// Called after a pick, for the vCPUs that it left in the queue: idle CPUs take them. CPUs that run
    /// something are not kicked. Otherwise two vCPUs that were stopped for each other would kick each other's
    /// CPUs for ever.
    fn kick_idle(&mut self, now: Ns) {
        for place in 0..self.queue.len() {
            if let Some(cpu) = self.find_idle(self.queue[place]) {
                self.kick(cpu, now);
            }
        }
    }

    /// Wakes the vCPUs whose time has come.
    fn fire_timers(&mut self, now: Ns) {
        for vcpu in self.vcpus.ids() {
            if matches!(self.vcpus[vcpu].state, State::Halted(Some(at)) if at <= now) {
                self.wake_up(vcpu, now);
            }
        }
    }

    fn end_wait(&mut self, vcpu: VcpuId, now: Ns) {
        if let State::Runnable(since) = self.vcpus[vcpu].state {
            self.counting.counters_mut(vcpu).waited_ns += now.saturating_sub(since);
        }
    }

    fn finish(&mut self, vcpu: VcpuId, now: Ns) {
        self.end_wait(vcpu, now);
        self.queue.retain(|&queued| queued != vcpu);
        self.vcpus[vcpu].state = State::Gone;
    }

    /// Takes the first vCPU of the queue that may run on `cpu`.
    fn take_first(&mut self, cpu: CpuId) -> Option<VcpuId> {
        let place =
            (0..self.queue.len()).find(|&place| self.cpus_of(self.queue[place]).contains(cpu))?;
        self.queue.remove(place)
    }

    /// A woken vCPU gets an idle CPU, or ends the run of a vCPU that was alone on its CPU.
    fn wake_up(&mut self, vcpu: VcpuId, now: Ns) {
        self.emit(now, Event::Wake(vcpu));
        self.enqueue(vcpu, now);
        let alone = |state| matches!(state, CpuState::Runs { sliced: false, .. });
        if let Some(cpu) = self.find_idle(vcpu).or_else(|| self.find_cpu(vcpu, alone)) {
            self.kick(cpu, now);
        }
    }

    /// Puts `curr` on `cpu`: for a slice if another vCPU waits for this CPU.
    fn dispatch(&mut self, cpu: CpuId, curr: VcpuId, now: Ns) -> Decision {
        self.end_wait(curr, now);
        let vcpu = &mut self.vcpus[curr];
        (vcpu.state, vcpu.last_cpu) = (State::Running(cpu), Some(cpu));
        let sliced = self
            .queue
            .iter()
            .any(|&vcpu| self.cpus_of(vcpu).contains(cpu));
        self.cpus[cpu].state = CpuState::Runs { vcpu: curr, sliced };
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
        }
    }

    /// When the first halted vCPU wakes by itself.
    fn next_wake(&self) -> Option<Ns> {
        let times = self.vcpus.iter().filter_map(|vcpu| match vcpu.state {
            State::Halted(at) => at,
            _ => None,
        });
        times.min()
    }

    /// The pool has other CPUs than before: every CPU looks at the queue.
    fn cpus_changed(&mut self, now: Ns) {
        for cpu in self.online.iter() {
            self.kick(cpu, now);
        }
    }
}

impl<E: Events + Debug + Send> Policy<E> for RoundRobin<E> {
    fn add_guest(&mut self) -> GuestId {
        self.guests.push(Vec::new())
    }

    fn add_vcpu(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        allowed: Option<CpuSet>,
    ) -> Result<VcpuId, AdmissionError> {
        if let SchedParams::Reserved(_) = params {
            return Err(AdmissionError::NoReservations);
        }
        if self.vcpus.len() >= MAX_VCPUS {
            return Err(AdmissionError::TooManyVcpus(MAX_VCPUS));
        }
        let allowed = allowed.unwrap_or(self.all).and(self.all);
        if allowed.is_empty() {
            return Err(AdmissionError::NoCpu);
        }
        let vcpu = self.vcpus.push(RoundRobinVcpu {
            allowed,
            state: State::Halted(None),
            last_cpu: None,
            wake_pending: false,
            ending: false,
        });
        self.guests[guest].push(vcpu);
        self.counting.add_vcpu();
        Ok(vcpu)
    }

    fn remove(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus.get(vcpu).map(|v| v.state) {
            None | Some(State::Gone) => {}
            Some(State::Running(cpu)) => {
                self.vcpus[vcpu].ending = true;
                self.kick(cpu, now);
            }
            Some(State::Halted(_) | State::Runnable(_)) => self.finish(vcpu, now),
        }
    }

    fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        self.cpus[cpu].state = CpuState::Picks;
        self.kicks.remove(cpu);
        self.fire_timers(now);
        let is_online = self.online.contains(cpu);
        let curr = is_online.then(|| self.take_first(cpu)).flatten();
        self.cpus[cpu].kicked = false;
        self.cpus[cpu].state = CpuState::Idle;
        let decision = curr.map(|curr| self.dispatch(cpu, curr, now));
        if decision.is_none() {
            self.emit(now, Event::Idle { cpu });
        }
        self.kick_idle(now);
        decision
    }

    fn stop(&mut self, cpu: CpuId, why: StopReason, hints: Hints, ran: CpuTime, now: Ns) {
        let here = &mut self.cpus[cpu];
        let CpuState::Runs { vcpu, .. } = here.state else {
            return;
        };
        here.state = CpuState::Picks;
        let (donor, curr) = (vcpu, vcpu);
        self.emit(
            now,
            Event::Stop {
                cpu,
                donor,
                curr,
                ran: ran.0,
            },
        );
        if why == StopReason::Preempted {
            self.counting.preempted(cpu, hints.holds());
        }
        let v = &mut self.vcpus[vcpu];
        match why {
            StopReason::Ended => self.finish(vcpu, now),
            _ if v.ending => self.finish(vcpu, now),
            StopReason::Halted(until) if !v.wake_pending => {
                v.state = State::Halted(until);
                self.emit(now, Event::Halt(vcpu));
            }
            StopReason::Halted(_) | StopReason::Preempted | StopReason::Rang => {
                v.wake_pending &= !matches!(why, StopReason::Halted(_));
                self.enqueue(vcpu, now);
            }
        }
    }

    fn wake(&mut self, vcpu: VcpuId, now: Ns) {
        let Some(v) = self.vcpus.get_mut(vcpu) else {
            return;
        };
        match v.state {
            State::Gone => {}
            State::Runnable(_) | State::Running(_) => v.wake_pending = true,
            State::Halted(_) => self.wake_up(vcpu, now),
        }
    }

    fn take_kicks(&mut self) -> CpuSet {
        std::mem::replace(&mut self.kicks, CpuSet::EMPTY)
    }

    fn next_timer(&self) -> Option<Ns> {
        self.next_wake()
    }

    fn charge_elsewhere(&mut self, vcpu: VcpuId, spent: CpuTime, _now: Ns) {
        if self.vcpus.get(vcpu).is_some() {
            let counters = self.counting.counters_mut(vcpu);
            counters.charged_ns += spent.0;
            counters.elsewhere_ns += spent.0;
        }
    }

    fn charge_sleep(&mut self, vcpu: VcpuId, spent: CpuTime, _cpu: Option<CpuId>, now: Ns) {
        self.charge_elsewhere(vcpu, spent, now);
        if self.vcpus.get(vcpu).is_some() {
            self.counting.counters_mut(vcpu).sleep_ns += spent.0;
        }
    }

    fn host_took(&mut self, vcpu: VcpuId, taken: CpuTime) {
        if self.vcpus.get(vcpu).is_some() {
            self.counting.counters_mut(vcpu).host_steal_ns += taken.0;
        }
    }

    fn add_worker(&mut self, guest: GuestId) -> WorkerId {
        self.workers.push(RoundRobinWorker { guest, busy: false })
    }

    /// It works at once, wherever the first vCPU of its guest ran last: the host's scheduler shares the CPU.
    fn worker_ready(&mut self, worker: WorkerId, _now: Ns) {
        let Some(known) = self.workers.get_mut(worker) else {
            return;
        };
        let Some(&donor) = self.guests[known.guest].first() else {
            return;
        };
        if std::mem::replace(&mut known.busy, true) {
            return;
        }
        let cpus = self.cpus_of(donor);
        let last = self.vcpus[donor].last_cpu;
        let last = last.filter(|&cpu| cpus.contains(cpu));
        if let Some(cpu) = last.or_else(|| cpus.lowest()) {
            self.worker_orders.push(WorkerOrder::Work(Grant {
                worker,
                cpu,
                donor,
                limit: GRANT_NS,
            }));
        }
    }

    fn worker_stopped(&mut self, worker: WorkerId, spent: CpuTime, now: Ns) {
        let Some(known) = self.workers.get_mut(worker) else {
            return;
        };
        known.busy = false;
        if let Some(&donor) = self.guests[known.guest].first() {
            self.counting.counters_mut(donor).devices_ns += spent.0;
            self.charge_elsewhere(donor, spent, now);
        }
    }

    fn take_worker_orders(&mut self) -> Vec<WorkerOrder> {
        std::mem::take(&mut self.worker_orders)
    }

    fn online_cpus(&self) -> CpuSet {
        self.online
    }

    fn cpu_offline(&mut self, cpu: CpuId, now: Ns) -> bool {
        if !self.online.contains(cpu) || self.online.len() == 1 {
            return false;
        }
        self.online.remove(cpu);
        self.emit(now, Event::CpuOffline(cpu));
        self.kick(cpu, now);
        self.cpus_changed(now);
        true
    }

    fn cpu_online(&mut self, cpu: CpuId, now: Ns) -> bool {
        if self.online.contains(cpu) || !self.all.contains(cpu) {
            return false;
        }
        self.online.insert(cpu);
        self.emit(now, Event::CpuOnline(cpu));
        self.cpus_changed(now);
        true
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn counters(&self, vcpu: VcpuId) -> Counters {
        self.counting.counters(vcpu).copied().unwrap_or_default()
    }

    fn counters_at(&self, vcpu: VcpuId, now: Ns) -> Counters {
        let mut counters = self.counters(vcpu);
        if let Some(State::Runnable(since)) = self.vcpus.get(vcpu).map(|v| v.state) {
            counters.waited_ns += now.saturating_sub(since);
        }
        counters
    }

    fn view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        let vcpu = self.vcpus.get(vcpu)?;
        Some(VcpuView {
            doing: match vcpu.state {
                State::Halted(_) => Doing::Halted,
                State::Runnable(_) => Doing::Runnable,
                State::Running(cpu) => Doing::Running(cpu),
                State::Gone => Doing::Gone,
            },
            reserved: None,
            reduced: None,
            displaced: self.online.and(vcpu.allowed).is_empty(),
            waits_for: None,
        })
    }

    fn view_cpu(&self, cpu: CpuId) -> Option<CpuView> {
        let CpuState::Runs { vcpu, .. } = self.cpus.get(cpu)?.state else {
            return None;
        };
        Some(CpuView {
            donor: vcpu,
            curr: vcpu,
            lock: 0,
        })
    }

    fn events(&self) -> &E {
        &self.events
    }

    fn events_mut(&mut self) -> &mut E {
        &mut self.events
    }

    fn into_events(self: Box<Self>) -> E {
        self.events
    }

    /// No vCPU waits while a CPU sleeps on which it may run, unless such a CPU was kicked.
    fn audit(&self) -> Result<(), String> {
        for &vcpu in &self.queue {
            let cpus = self.cpus_of(vcpu);
            let will_pick = |cpu: CpuId| self.cpus[cpu].kicked;
            let sleeps = |&cpu: &CpuId| self.cpus[cpu].state == CpuState::Idle;
            if !cpus.iter().any(will_pick)
                && let Some(cpu) = cpus.iter().find(sleeps)
            {
                return Err(format!("{vcpu} waits while {cpu} sleeps"));
            }
        }
        Ok(())
    }
}
