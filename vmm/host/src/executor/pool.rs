//! The pool: the policy and the vCPUs that nobody runs, under one lock.
//!
//! A vCPU is a value. It is either here, or in the hands of one executor (where it runs, or naps when
//! there is nothing else to run), or asleep in its berth;
//! taking it out of here is the only way to run it, so no vCPU runs twice at once. Policy and
//! places change together under the lock, and no system call is made while it is held: what has to
//! be done afterwards (kicks, berths) is collected and done when it is free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_machine::{ExitCounts, Guest, GuestRecord, Vcpu};
use baton_os::sys;
use vcpu_sched::{
    CpuId, CpuSet, CpuTime, Decision, Grant, Hints, Ns, Scheduler, StopReason as Stop, VcpuId,
    WorkerId, WorkerOrder,
};

use super::helpers::Seat;
use super::hints;
use super::host_cpus::Watched;
use super::listener::Listener;
use super::pins::Pins;
use super::station::Station;
use super::vain::VainRings;

/// Where a vCPU is.
pub(crate) enum Place {
    /// Here, for an executor to take.
    Here(Box<Vcpu>),
    /// In the hands of an executor.
    WithExecutor,
    /// Halted, asleep in KVM until an interrupt.
    InBerth,
    /// The same in the hands of an executor that has nothing else to run.
    Napping {
        /// The executor.
        cpu: CpuId,
        /// It shall come back.
        recalled: bool,
    },
    /// Gone with its guest, which has ended; these are its counters.
    Retired(ExitCounts),
    /// Lost with a thread that failed.
    Lost,
}

/// A guest of the pool.
pub(crate) struct Member {
    /// Not the guest itself, which is to go when it has ended.
    guest: Arc<GuestRecord>,
    /// Policy name of its vCPU 0; the others follow.
    pub(crate) first: u32,
    /// The threads of its devices.
    helpers: Vec<WorkerId>,
    /// Its doorbells that changed nothing.
    pub(crate) vain: VainRings,
    retired: bool,
}

impl Member {
    /// Policy name of vCPU `index`, if the guest has one.
    pub(crate) fn vcpu(&self, index: u32) -> Option<VcpuId> {
        (index < self.guest.vcpus()).then_some(VcpuId(self.first + index))
    }

    fn vcpus(&self) -> impl Iterator<Item = VcpuId> + use<> {
        (self.first..self.first + self.guest.vcpus()).map(VcpuId)
    }
}

/// A guest that joins the pool.
pub(crate) struct NewMember {
    pub(crate) guest: Arc<Guest>,
    /// Policy name of its vCPU 0; the others follow.
    pub(crate) first: u32,
    /// The policy's names of its devices' threads.
    pub(crate) helpers: Vec<WorkerId>,
}

/// A vCPU that joins the pool.
pub(crate) struct NewVcpu {
    /// Number of its guest.
    pub(crate) guest: usize,
    /// Name of its guest.
    pub(crate) guest_name: String,
    /// Its index in the guest.
    pub(crate) index: u32,
    /// Where it may run, asleep too.
    pub(crate) host_cpus: Vec<usize>,
}

/// What the lock protects.
pub(crate) struct State {
    pub(crate) sched: Scheduler<Listener>,
    places: Vec<Place>,
    members: Vec<Member>,
    /// Steal time that each vCPU has been told of.
    steal_told: Vec<Ns>,
    /// Sleepers that the policy wanted to run: to be called back when the lock is free.
    recalls: Vec<VcpuId>,
    /// vCPUs of ended guests, for whom nothing is left to do but to let go of what they have of the host.
    #[expect(
        clippy::vec_box,
        reason = "places are filled under the lock, and vCPUs are large"
    )]
    retired: Vec<Box<Vcpu>>,
    pub(crate) stopping: bool,
}

/// A halted vCPU on its way to or from its sleep.
pub(crate) type Sleeper = (VcpuId, Box<Vcpu>);

/// What to do once the lock is free.
#[must_use]
#[derive(Default)]
pub(crate) struct After {
    kicks: CpuSet,
    /// Berths whose vCPU shall come back.
    recall: Vec<VcpuId>,
    /// A vCPU to put to sleep.
    berth: Option<Sleeper>,
    /// What devices' threads are to be told.
    helpers: Vec<WorkerOrder>,
    /// vCPUs to let go.
    #[expect(clippy::vec_box, reason = "as in `State`")]
    retired: Vec<Box<Vcpu>>,
}

/// How a berth is asked for things; made after the pool, since berths call back into it.
pub(crate) trait Berths: Send + Sync {
    /// Puts a halted vCPU to sleep; it comes back by [`Pool::wakes_up`].
    fn put(&self, id: VcpuId, vcpu: Box<Vcpu>);
    /// Asks for it back.
    fn recall(&self, id: VcpuId);
}

/// The pool.
pub(crate) struct Pool {
    state: Mutex<State>,
    stations: Vec<Station>,
    /// Of the host CPUs, in the policy's order.
    host_cpus: Arc<[usize]>,
    pub(crate) pins: Pins,
    /// Looks whether the host CPUs can still be used.
    pub(crate) watch: Watched,
    /// Of the policy's helpers.
    seats: Vec<Arc<Seat>>,
    berths: Mutex<Option<Arc<dyn Berths>>>,
}

impl Pool {
    pub(crate) fn new(
        sched: Scheduler<Listener>,
        members: Vec<NewMember>,
        vcpus: impl ExactSizeIterator<Item = Box<Vcpu>>,
        host_cpus: Arc<[usize]>,
    ) -> Self {
        let cpus = sched.config().cpus;
        let count = vcpus.len();
        let helpers: usize = members.iter().map(|member| member.helpers.len()).sum();
        Self {
            state: Mutex::new(State {
                sched,
                places: vcpus.map(Place::Here).collect(),
                members: members
                    .into_iter()
                    .map(|member| Member {
                        guest: Arc::clone(member.guest.record()),
                        first: member.first,
                        helpers: member.helpers,
                        vain: VainRings::default(),
                        retired: false,
                    })
                    .collect(),
                steal_told: vec![0; count],
                recalls: Vec::new(),
                retired: Vec::new(),
                stopping: false,
            }),
            stations: (0..cpus).map(|_| Station::new()).collect(),
            host_cpus,
            pins: Pins::default(),
            watch: Watched::default(),
            seats: (0..helpers).map(|_| Arc::default()).collect(),
            berths: Mutex::new(None),
        }
    }

    pub(crate) fn station(&self, cpu: CpuId) -> &Station {
        &self.stations[cpu.index()]
    }

    /// The host CPUs, in the policy's order.
    pub(crate) fn host_cpus(&self) -> &[usize] {
        &self.host_cpus
    }

    /// Where the orders for `helper` arrive.
    pub(crate) fn seat(&self, helper: WorkerId) -> &Arc<Seat> {
        &self.seats[helper.index()]
    }

    /// The pool's name of the host CPU that the calling thread is on; `None`: it is none of the pool's.
    fn here(&self) -> Option<CpuId> {
        let host_cpu = sys::current_cpu()?;
        let place = self.host_cpus.iter().position(|&cpu| cpu == host_cpu)?;
        Some(CpuId(place as u32))
    }

    pub(crate) fn set_berths(&self, berths: Option<Arc<dyn Berths>>) {
        let before = {
            let mut place = self.berths.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, berths)
        };
        // Without the lock: what sleeps there comes back to the pool now.
        drop(before);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what was put off while the lock was held.
    pub(crate) fn finish(&self, after: After) {
        for cpu in after.kicks.iter() {
            self.stations[cpu.index()].kick();
        }
        for &order in &after.helpers {
            let (WorkerOrder::Work(Grant { worker: helper, .. }) | WorkerOrder::Stop(helper)) =
                order;
            self.seat(helper).order(order);
        }
        for vcpu in after.retired {
            vcpu.discard();
        }
        if after.recall.is_empty() && after.berth.is_none() {
            return;
        }
        let berths = self
            .berths
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match (berths, after.berth) {
            (Some(berths), berth) => {
                if let Some((id, vcpu)) = berth {
                    berths.put(id, vcpu);
                }
                for id in after.recall {
                    berths.recall(id);
                }
            }
            // The pool is closing: the vCPU only has to be kept.
            (None, Some((id, vcpu))) => self.comes_back(id, vcpu, 0),
            (None, None) => {}
        }
    }

    /// A berth gives a vCPU back: it was woken, or recalled. The calling thread has used `spent` ns of
    /// CPU time for its sleep, which the vCPU's claim pays for.
    pub(crate) fn comes_back(&self, id: VcpuId, vcpu: Box<Vcpu>, spent: Ns) {
        let here = self.here();
        let after = {
            let mut state = self.lock();
            let now = sys::monotonic_ns();
            state.sched.charge_sleep(id, CpuTime(spent), here, now);
            state.wakes_up(id, vcpu, now);
            state.after()
        };
        self.finish(after);
    }

    /// Sends the vCPUs that wait to be started to their berths, and wakes those that start a guest.
    pub(crate) fn begin(&self, starters: &[VcpuId], berths: bool) {
        let (sleepers, after) = {
            let mut state = self.lock();
            let now = sys::monotonic_ns();
            for &id in starters {
                state.sched.wake(id, now);
            }
            if !berths {
                // Without berths they are looked at from time to time.
                state.wake_all(now);
            }
            (
                if berths { state.sleepers() } else { Vec::new() },
                state.after(),
            )
        };
        for sleeper in sleepers {
            self.finish(After {
                berth: Some(sleeper),
                ..After::default()
            });
        }
        self.finish(after);
    }

    /// Stops the executors; they put their vCPUs back and end.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        for station in &self.stations {
            station.kick();
        }
        for seat in &self.seats {
            seat.close();
        }
    }

    /// A guest has ended: its vCPUs leave the policy, wherever they are.
    pub(crate) fn retire(&self, guest: &GuestRecord) {
        let (after, helpers) = {
            let mut state = self.lock();
            let after = state.retire(guest.number);
            (after, state.member(guest.number).helpers.clone())
        };
        for helper in helpers {
            self.seat(helper).close();
        }
        self.finish(after);
    }
}

impl State {
    /// The policy's name of a vCPU.
    pub(crate) fn id(&self, vcpu: &Vcpu) -> VcpuId {
        VcpuId(self.members[vcpu.guest.number].first + vcpu.index)
    }

    /// The guest with this number.
    pub(crate) fn member(&self, number: usize) -> &Member {
        &self.members[number]
    }

    /// The same, to change it.
    pub(crate) fn member_mut(&mut self, number: usize) -> &mut Member {
        &mut self.members[number]
    }

    /// What to do when the lock is free.
    pub(crate) fn after(&mut self) -> After {
        let mut after = After {
            kicks: self.sched.take_kicks(),
            helpers: self.sched.take_worker_orders().collect(),
            retired: std::mem::take(&mut self.retired),
            ..After::default()
        };
        for id in std::mem::take(&mut self.recalls) {
            self.call_back(id, &mut after);
        }
        after
    }

    /// Keeps a vCPU that its executor stopped, or returns it for its berth.
    pub(crate) fn keep(&mut self, id: VcpuId, vcpu: Box<Vcpu>, berth: bool) -> Option<Sleeper> {
        if vcpu.guest.has_ended() {
            self.lay_off(id, vcpu);
            return None;
        }
        let place = &mut self.places[id.index()];
        if berth {
            *place = Place::InBerth;
            return Some((id, vcpu));
        } else {
            *place = Place::Here(vcpu);
        }
        None
    }

    /// Charges what the console's thread has used for the guest of `vcpu` since the last time.
    pub(crate) fn charge_console(&mut self, vcpu: &Vcpu, now: Ns) {
        let spent = vcpu.guest.console().take_cpu_ns();
        self.sched
            .charge_elsewhere(self.id(vcpu), CpuTime(spent), now);
    }

    /// Its sleep is over.
    fn wakes_up(&mut self, id: VcpuId, vcpu: Box<Vcpu>, now: Ns) {
        if vcpu.guest.has_ended() {
            self.lay_off(id, vcpu);
        } else {
            self.places[id.index()] = Place::Here(vcpu);
        }
        self.sched.wake(id, now);
    }

    /// Nobody runs `vcpu` any more: its counters stay, and it goes when the lock is free.
    fn lay_off(&mut self, id: VcpuId, vcpu: Box<Vcpu>) {
        self.places[id.index()] = Place::Retired(vcpu.exits);
        self.retired.push(vcpu);
    }

    /// A vCPU in the hands of an idle executor has napped. Returned if it is to sleep on.
    pub(crate) fn napped(&mut self, (id, vcpu): Sleeper, woken: bool, now: Ns) -> Option<Sleeper> {
        let place = &self.places[id.index()];
        if woken || self.stopping || matches!(place, Place::Napping { recalled: true, .. }) {
            self.wakes_up(id, vcpu, now);
            return None;
        }
        self.places[id.index()] = Place::InBerth;
        Some((id, vcpu))
    }

    /// `id`, which was to go to its berth, naps with the executor of `cpu` instead.
    pub(crate) fn naps(&mut self, id: VcpuId, cpu: CpuId) {
        self.places[id.index()] = Place::Napping {
            cpu,
            recalled: false,
        };
    }

    /// Takes the vCPUs that wait to be started.
    fn sleepers(&mut self) -> Vec<Sleeper> {
        let mut sleepers = Vec::new();
        for (place, id) in self.places.iter_mut().zip(0..) {
            match std::mem::replace(place, Place::InBerth) {
                Place::Here(vcpu) if vcpu.index > 0 => sleepers.push((VcpuId(id), vcpu)),
                other => *place = other,
            }
        }
        sleepers
    }

    fn wake_all(&mut self, now: Ns) {
        for id in 0..self.places.len() as u32 {
            self.sched.wake(VcpuId(id), now);
        }
    }

    /// Asks the policy for `cpu`, and takes the vCPU that it chose.
    pub(crate) fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<(Box<Vcpu>, Decision)> {
        loop {
            let decision = self.sched.pick(cpu, now)?;
            let place = &mut self.places[decision.curr.index()];
            match std::mem::replace(place, Place::WithExecutor) {
                Place::Here(mut vcpu) => {
                    self.tell_steal(&mut vcpu, decision.curr);
                    return Some((vcpu, decision));
                }
                // Not to be had: it ended, or sleeps in KVM though the policy was told that it
                // woke. It halts again, as far as the policy is concerned, and is called back.
                elsewhere => {
                    let sleeps = matches!(elsewhere, Place::InBerth | Place::Napping { .. });
                    *place = elsewhere;
                    let why = match sleeps {
                        true => Stop::Halted(None),
                        false => Stop::Ended,
                    };
                    self.sched
                        .stop(cpu, why, Hints::default(), CpuTime::ZERO, now);
                    if sleeps {
                        self.recalls.push(decision.curr);
                    }
                }
            }
        }
    }

    /// What runs on `cpu` wakes its sibling `target`.
    pub(crate) fn wake(&mut self, cpu: CpuId, target: VcpuId, now: Ns) -> After {
        // It comes back first; the policy hears of it then. One that could not run yet sleeps on: the
        // policy knows that it is awake, and `pick` calls it back when it is to run.
        if !self.sched.is_throttled(target)
            && let Some(recall) = self.recall(target)
        {
            return recall;
        }
        self.sched.wake_by(cpu, target, now);
        self.after()
    }

    /// Calls `id` back from its sleep in KVM, if it sleeps there. `None`: it does not.
    fn recall(&mut self, id: VcpuId) -> Option<After> {
        let sleeps = matches!(
            self.places[id.index()],
            Place::InBerth | Place::Napping { .. }
        );
        sleeps.then(|| {
            self.recalls.push(id);
            self.after()
        })
    }

    fn call_back(&mut self, id: VcpuId, after: &mut After) {
        match &mut self.places[id.index()] {
            Place::InBerth => after.recall.push(id),
            Place::Napping { cpu, recalled } => {
                *recalled = true;
                after.kicks.insert(*cpu);
            }
            _ => {}
        }
    }

    /// The thread that ran `id` for `cpu` is gone, and the vCPU with it.
    pub(crate) fn lose(&mut self, cpu: CpuId, id: VcpuId, ran: Ns) {
        self.places[id.index()] = Place::Lost;
        let now = sys::monotonic_ns();
        self.sched
            .stop(cpu, Stop::Ended, Hints::default(), CpuTime(ran), now);
    }

    fn tell_steal(&mut self, vcpu: &mut Vcpu, id: VcpuId) {
        let counters = self.sched.counters(id);
        // Steal time is both: the guest could have run.
        let waited = counters.waited_ns + counters.throttled_wait_ns;
        let told = std::mem::replace(&mut self.steal_told[id.index()], waited);
        let more = waited.saturating_sub(told);
        vcpu.guest.hints.add_steal(vcpu.index, more);
        vcpu.guest.steal.add(vcpu.index, more);
        vcpu.gaps.waited(more);
    }

    fn retire(&mut self, number: usize) -> After {
        let now = sys::monotonic_ns();
        let member = &mut self.members[number];
        if std::mem::replace(&mut member.retired, true) {
            return self.after();
        }
        let mut all = After::default();
        for id in member.vcpus() {
            self.sched.remove(id, now);
            self.sched.events.gone(now, id);
            match std::mem::replace(&mut self.places[id.index()], Place::Lost) {
                Place::Here(vcpu) => self.lay_off(id, vcpu),
                other => self.places[id.index()] = other,
            }
            if let Some(after) = self.recall(id) {
                all.add(after);
            }
        }
        all.add(self.after());
        all
    }

    /// The counters of all vCPUs that are back or gone, with their policy names; for the end of a run.
    /// Those that are here go.
    pub(crate) fn take_counters(&mut self) -> Vec<(VcpuId, ExitCounts)> {
        for member in &mut self.members {
            // A device's thread may keep the pool a moment longer than those who ran the guests.
            member.retired = true;
        }
        let places = std::mem::take(&mut self.places).into_iter();
        places
            .zip(0..)
            .map(|(place, id)| {
                let exits = match place {
                    Place::Here(vcpu) => vcpu.exits,
                    Place::Retired(exits) => exits,
                    Place::WithExecutor | Place::InBerth | Place::Napping { .. } | Place::Lost => {
                        ExitCounts::default()
                    }
                };
                (VcpuId(id), exits)
            })
            .collect()
    }
}

impl After {
    /// The kicks and recalls of `other` too; it puts nothing to sleep.
    fn add(&mut self, other: Self) {
        other.kicks.iter().for_each(|cpu| self.kicks.insert(cpu));
        self.recall.extend(other.recall);
        self.helpers.extend(other.helpers);
        self.retired.extend(other.retired);
    }

    /// The same, with a vCPU to put to sleep.
    pub(crate) fn with_berth(self, berth: Option<Sleeper>) -> Self {
        Self { berth, ..self }
    }
}

/// What `vcpu` says now, in the policy's terms.
pub(crate) fn said(vcpu: &Vcpu, first: u32) -> Hints {
    hints::to_policy(vcpu.guest.hints.snapshot(vcpu.index), first)
}

#[cfg(test)]
mod tests;
