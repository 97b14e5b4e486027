//! The event loop: what an executor on each host CPU does, in virtual time.

use std::fmt::Debug;

use crate::classes::admission::AdmissionError;
use crate::classes::reservation::{Reservation, SchedParams};
use crate::config::Config;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, GuestId, Ns, VcpuId};
use crate::policy::Policy;
use crate::policy_kind::PolicyKind;
use crate::rules::stop::StopReason;
use crate::sim::action::Action;
use crate::sim::host_cpu::{Busy, HostCpu, HostState};
use crate::sim::lock::{LockId, LockKind};
use crate::sim::outcome::{Outcome, VcpuOutcome};
use crate::sim::script::Behaviour;
use crate::sim::world::World;

/// More events than this at one moment are a loop without progress: a bug of the policy.
const TOO_BUSY: u64 = 1_000_000;

/// What the host's mechanisms cost, ns. All zero by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// To enter another vCPU than the one before.
    pub switch_ns: Ns,
    /// To enter the same vCPU again.
    pub exit_ns: Ns,
    /// From a kick to the moment when the CPU reschedules.
    pub kick_ns: Ns,
}

impl Costs {
    /// About what a KVM host without hardware virtualization takes: an exit 15 us, a switch 17 us,
    /// a kick 18 us.
    #[must_use]
    pub const fn typical() -> Self {
        Self {
            switch_ns: 17_000,
            exit_ns: 15_000,
            kick_ns: 18_000,
        }
    }
}

/// Something that happens from outside.
#[derive(Clone, Copy, Debug)]
enum Outside {
    Wake(VcpuId),
    Remove(VcpuId),
    RemoveGuest(GuestId),
    Pause(GuestId),
    Resume(GuestId),
    SetReservation(VcpuId, Reservation),
    SetWeight(VcpuId, u32),
    SetAllowed(VcpuId, Option<CpuSet>),
    CpuOffline(CpuId),
    CpuOnline(CpuId),
    RemoveCpu(CpuId),
    AddCpu(CpuId),
    /// The host runs nothing of the pool until this time, ns.
    HostStops(Ns),
}

/// A pool of simulated host CPUs with guests on it.
#[derive(Debug)]
pub struct Simulation<E: Events = Vec<(Ns, Event)>> {
    policy: Box<dyn Policy<E>>,
    world: World,
    vcpus: usize,
    cpus: Vec<HostCpu>,
    costs: Costs,
    now: Ns,
    outside: Vec<(Ns, Outside)>,
}

impl Simulation {
    /// A pool that keeps a trace.
    #[must_use]
    pub fn new(config: Config, costs: Costs) -> Self {
        Self::with_events(config, costs, Vec::new())
    }
}

impl<E: Events + Debug + Send + 'static> Simulation<E> {
    /// A pool under [`PolicyKind::Deadline`] that reports each decision to `events`.
    #[must_use]
    pub fn with_events(config: Config, costs: Costs, events: E) -> Self {
        Self::of_policy(PolicyKind::Deadline.pool(config, events), costs)
    }
}

impl<E: Events> Simulation<E> {
    /// A pool under `policy`, to which nothing was added yet.
    #[must_use]
    pub fn of_policy(policy: Box<dyn Policy<E>>, costs: Costs) -> Self {
        let config = *policy.config();
        Self {
            world: World::new(config.proxy),
            cpus: vec![HostCpu::new(); config.cpus],
            policy,
            vcpus: 0,
            costs,
            now: 0,
            outside: Vec::new(),
        }
    }

    /// Adds a guest.
    pub fn guest(&mut self) -> GuestId {
        self.policy.add_guest()
    }

    /// Adds a lock to a guest.
    pub fn lock(&mut self, guest: GuestId, kind: LockKind) -> LockId {
        self.world.lock(guest, kind)
    }

    /// Adds a vCPU that starts at time 0 and may run anywhere.
    ///
    /// # Errors
    /// As [`Policy::add_vcpu`].
    ///
    /// # Panics
    /// If its script uses a lock of another guest.
    pub fn vcpu(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        behaviour: impl Into<Behaviour>,
    ) -> Result<VcpuId, AdmissionError> {
        self.vcpu_on(guest, params, None, behaviour)
    }

    /// Adds a vCPU that starts at time 0 and may run on these CPUs.
    ///
    /// # Errors
    /// As [`Policy::add_vcpu`].
    ///
    /// # Panics
    /// If its script uses a lock of another guest.
    pub fn vcpu_on(
        &mut self,
        guest: GuestId,
        params: SchedParams,
        allowed: Option<CpuSet>,
        behaviour: impl Into<Behaviour>,
    ) -> Result<VcpuId, AdmissionError> {
        let vcpu = self.policy.add_vcpu(guest, params, allowed)?;
        self.world.add(guest, behaviour.into());
        self.vcpus += 1;
        self.wake_at(vcpu, 0);
        Ok(vcpu)
    }

    /// A device wakes the vCPU at this time, ns.
    pub fn wake_at(&mut self, vcpu: VcpuId, at: Ns) {
        self.outside.push((at, Outside::Wake(vcpu)));
    }

    /// The vCPU is removed at this time, ns.
    pub fn remove_at(&mut self, vcpu: VcpuId, at: Ns) {
        self.outside.push((at, Outside::Remove(vcpu)));
    }

    /// The guest is removed at this time, ns.
    pub fn remove_guest_at(&mut self, guest: GuestId, at: Ns) {
        self.outside.push((at, Outside::RemoveGuest(guest)));
    }

    /// The guest is paused between these times, ns.
    pub fn pause(&mut self, guest: GuestId, from: Ns, to: Ns) {
        self.outside.push((from, Outside::Pause(guest)));
        self.outside.push((to, Outside::Resume(guest)));
    }

    /// The host runs no CPU of the pool between these times, ns.
    pub fn stop_host(&mut self, from: Ns, to: Ns) {
        self.outside.push((from, Outside::HostStops(to)));
    }

    /// The vCPU gets this reservation at this time, ns, if it fits then.
    pub fn set_reservation_at(&mut self, vcpu: VcpuId, reservation: Reservation, at: Ns) {
        self.outside
            .push((at, Outside::SetReservation(vcpu, reservation)));
    }

    /// The vCPU gets this weight at this time, ns.
    pub fn set_weight_at(&mut self, vcpu: VcpuId, weight: u32, at: Ns) {
        self.outside.push((at, Outside::SetWeight(vcpu, weight)));
    }

    /// The vCPU may run on these CPUs from this time on, ns, if it fits there.
    pub fn set_allowed_at(&mut self, vcpu: VcpuId, allowed: Option<CpuSet>, at: Ns) {
        self.outside.push((at, Outside::SetAllowed(vcpu, allowed)));
    }

    /// The CPU is offline between these times, ns.
    pub fn offline(&mut self, cpu: CpuId, from: Ns, to: Ns) {
        self.outside.push((from, Outside::CpuOffline(cpu)));
        self.outside.push((to, Outside::CpuOnline(cpu)));
    }

    /// The pool gives the CPU up at the first of these times, ns, if it can, and gets it back at the second.
    pub fn without_cpu(&mut self, cpu: CpuId, from: Ns, to: Ns) {
        self.outside.push((from, Outside::RemoveCpu(cpu)));
        self.outside.push((to, Outside::AddCpu(cpu)));
    }

    /// Runs until `end`, ns, and returns what came of it.
    ///
    /// # Panics
    /// If the policy breaks a promise that [`Policy::audit`] checks (in debug builds), or if a script
    /// unlocks what it does not hold.
    pub fn run(mut self, end: Ns) -> Outcome<E> {
        self.outside.sort_by_key(|&(at, _)| std::cmp::Reverse(at));
        let mut at_once = 0;
        while let Some(next) = self.next_event().filter(|&next| next < end) {
            at_once = if next > self.now { 0 } else { at_once + 1 };
            assert!(at_once < TOO_BUSY, "no progress at {next} ns");
            self.advance(next);
            self.serve();
            self.check();
        }
        self.advance(end.max(self.now));
        for cpu in 0..self.cpus.len() {
            self.stop(cpu, StopReason::Preempted);
        }
        self.outcome()
    }

    fn outcome(self) -> Outcome<E> {
        let vcpu = |index: usize| {
            let id = VcpuId(index as u32);
            let tally = self.world.tally(id, self.now);
            VcpuOutcome {
                guest: self.world.guest(id),
                counters: self.policy.counters(id),
                acquisitions: tally.acquisitions,
                wait_max_ns: tally.wait_max_ns,
                wait_sum_ns: tally.wait_sum_ns,
                passes: tally.passes,
                rings: tally.rings,
            }
        };
        Outcome {
            vcpus: (0..self.vcpus).map(vcpu).collect(),
            end: self.now,
            events: self.policy.into_events(),
        }
    }

    /// When the next event happens.
    fn next_event(&self) -> Option<Ns> {
        let outside = self.outside.last().map(|&(at, _)| at);
        let cpus = (0..self.cpus.len()).filter_map(|cpu| self.next_event_of(cpu));
        cpus.chain(outside).min().map(|at| at.max(self.now))
    }

    fn next_event_of(&self, cpu: usize) -> Option<Ns> {
        let c = &self.cpus[cpu];
        let (own, until) = match c.state {
            HostState::Idle(until) => (None, until),
            HostState::Busy(busy) if busy.overhead > 0 => {
                (Some(self.now + busy.overhead), busy.until)
            }
            HostState::Busy(busy) => {
                let runs_for = self.world.runs_for(busy.curr);
                (runs_for.map(|time| self.now + time), busy.until)
            }
        };
        [own, until, c.kick_at].into_iter().flatten().min()
    }

    /// Lets time pass.
    fn advance(&mut self, to: Ns) {
        let time = to - self.now;
        for cpu in &mut self.cpus {
            if let HostState::Busy(busy) = &mut cpu.state {
                let overhead = busy.overhead.min(time);
                busy.overhead -= overhead;
                self.world.pass(busy.curr, time - overhead);
            }
        }
        self.now = to;
    }

    /// Handles what is due now.
    fn serve(&mut self) {
        while let Some(&(at, outside)) = self.outside.last() {
            if at > self.now {
                break;
            }
            self.outside.pop();
            self.happen(outside);
            self.send_kicks();
        }
        for cpu in 0..self.cpus.len() {
            self.guest_acts(cpu);
            if self.cpus[cpu].is_due(self.now) {
                match self.cpus[cpu].state {
                    HostState::Idle(_) => self.pick(cpu),
                    HostState::Busy(_) => self.preempt(cpu),
                }
            }
        }
    }

    /// The host runs nothing until `until`.
    fn skip_to(&mut self, until: Ns) {
        let taken = until.saturating_sub(self.now);
        for cpu in &mut self.cpus {
            if let HostState::Busy(busy) = &mut cpu.state {
                busy.since += taken;
                self.policy.host_took(busy.curr, CpuTime(taken));
            }
        }
        self.now += taken;
    }

    fn happen(&mut self, outside: Outside) {
        let now = self.now;
        // What is refused does not happen.
        match outside {
            Outside::Wake(vcpu) => self.policy.wake(vcpu, now),
            Outside::Remove(vcpu) => {
                self.policy.remove(vcpu, now);
                self.world.forget(vcpu);
            }
            Outside::RemoveGuest(guest) => {
                self.policy.remove_guest(guest, now);
                for vcpu in self.world.peers(guest) {
                    self.world.forget(vcpu);
                }
            }
            Outside::Pause(guest) => {
                self.policy.pause(guest, now);
            }
            Outside::Resume(guest) => {
                self.policy.resume(guest, now);
            }
            Outside::HostStops(until) => self.skip_to(until),
            Outside::SetReservation(vcpu, reservation) => {
                let _ = self.policy.set_reservation(vcpu, reservation, now);
            }
            Outside::SetWeight(vcpu, weight) => {
                let _ = self.policy.set_weight(vcpu, weight, now);
            }
            Outside::SetAllowed(vcpu, allowed) => {
                let _ = self.policy.set_allowed(vcpu, allowed, now);
            }
            Outside::CpuOffline(cpu) => {
                self.policy.cpu_offline(cpu, now);
            }
            Outside::CpuOnline(cpu) => {
                self.policy.cpu_online(cpu, now);
            }
            Outside::RemoveCpu(cpu) => {
                // A refusal changes nothing.
                let _ = self.policy.remove_cpu(cpu, now);
            }
            Outside::AddCpu(cpu) => {
                self.policy.add_cpu(cpu, now);
            }
        }
    }

    /// The vCPU on `cpu` does what it has to do at this moment.
    fn guest_acts(&mut self, cpu: usize) {
        let id = CpuId(cpu as u32);
        while let HostState::Busy(busy) = self.cpus[cpu].state {
            if busy.overhead > 0 || self.world.runs_for(busy.curr) != Some(0) {
                return;
            }
            match self.world.act(busy.curr, self.now) {
                Action::Run => {}
                Action::Wake(vcpu) => {
                    self.policy.wake_by(id, vcpu, self.now);
                    self.send_kicks();
                }
                Action::HandOver(lock, to) => {
                    self.policy.hand_over(id, lock, to, self.now);
                    self.send_kicks();
                }
                Action::Release(to) => {
                    self.policy.release(id, to, self.now);
                    self.stop(cpu, StopReason::Rang);
                    self.pick(cpu);
                }
                Action::Stop(why) => {
                    self.stop(cpu, why);
                    self.pick(cpu);
                }
            }
        }
    }

    /// Time is up, or a kick came.
    fn preempt(&mut self, cpu: usize) {
        let HostState::Busy(busy) = &mut self.cpus[cpu].state else {
            return;
        };
        let hints = self.world.hints(busy.curr);
        if let Some(end) = self.policy.defer(CpuId(cpu as u32), &hints, self.now) {
            busy.until = Some(end);
            self.world.host(busy.curr).deferred = true;
            self.cpus[cpu].kick_at = None;
        } else {
            self.stop(cpu, StopReason::Preempted);
            self.pick(cpu);
        }
    }

    fn stop(&mut self, cpu: usize, why: StopReason) {
        let HostState::Busy(Busy { curr, since, .. }) = self.cpus[cpu].state else {
            return;
        };
        self.cpus[cpu].state = HostState::Idle(None);
        *self.world.host(curr) = Default::default();
        let hints = self.world.hints(curr);
        let ran = CpuTime(self.now - since);
        let id = CpuId(cpu as u32);
        self.policy.stop(id, why, hints, ran, self.now);
        self.send_kicks();
    }

    fn pick(&mut self, cpu: usize) {
        let decision = self.policy.pick(CpuId(cpu as u32), self.now);
        let c = &mut self.cpus[cpu];
        c.kick_at = None;
        c.state = match decision {
            None => {
                let present = self.policy.online_cpus().contains(CpuId(cpu as u32));
                HostState::Idle(self.policy.next_timer().filter(|_| present))
            }
            Some(decision) => {
                let same = c.last_run.replace(decision.curr) == Some(decision.curr);
                let host = self.world.host(decision.curr);
                host.running = true;
                host.donated = decision.is_proxied().then_some(decision.lock);
                HostState::Busy(Busy {
                    curr: decision.curr,
                    since: self.now,
                    overhead: if same {
                        self.costs.exit_ns
                    } else {
                        self.costs.switch_ns
                    },
                    until: decision.until,
                })
            }
        };
        self.send_kicks();
    }

    fn send_kicks(&mut self) {
        let at = self.now + self.costs.kick_ns;
        for cpu in self.policy.take_kicks().iter() {
            let kick_at = &mut self.cpus[cpu.index()].kick_at;
            *kick_at = Some(kick_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// In debug builds: panics if the policy has broken a promise.
    fn check(&self) {
        if cfg!(debug_assertions)
            && let Err(broken) = self.policy.audit()
        {
            panic!("at {} ns: {broken}", self.now);
        }
    }
}
