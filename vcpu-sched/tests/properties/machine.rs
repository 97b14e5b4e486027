//! A caller of the policy, with the state that its executors keep.

use vcpu_sched::{
    Config, CpuId, CpuSet, CpuTime, Doing, Event, GuestId, Hints, Ns, SchedParams, Scheduler,
    StopReason, VcpuId, VcpuView, Wait, WaitKind, WorkerId, WorkerOrder,
};

use crate::US;
use crate::changes::{Allowance, KnownGuest};
use crate::ops::{GUESTS, Op, Why};

/// What one CPU does, as its executor has recorded it.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub running: Option<(VcpuId, VcpuId)>,
    pub since: Ns,
    /// When it reschedules by itself.
    pub until: Option<Ns>,
    pub kicked: bool,
    /// Its kick is deferred.
    pub deferred: bool,
}

/// A vCPU, as its creator has recorded it.
#[derive(Clone, Debug)]
pub struct Known {
    pub guest: GuestId,
    pub params: SchedParams,
    pub removed: bool,
    /// Its name is free.
    pub reclaimed: bool,
    /// When the reservation in force was first changed.
    pub changed: Ns,
    pub allowance: Allowance,
    /// It has a weight in place of its reservation as soon as it has stopped.
    pub loses_reservation: bool,
    /// Charged beyond the ends of decisions: deferrals, and kicks that took effect late.
    pub overrun: Ns,
    /// What it ran, and what ran on its budget, as the executors have recorded it.
    pub ran: Ns,
    pub donor_for: Ns,
    /// What other threads used for it.
    pub elsewhere: Ns,
    /// Whether its last record was that it sleeps for a lock, and does not spin.
    pub blocks: bool,
    /// Whether its last record was a guess of the host.
    pub guessed: bool,
}

/// What a worker does, as its thread has recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Idle,
    Waits,
    /// On this budget.
    Works(VcpuId),
}

pub struct Machine {
    pub policy: Scheduler<Vec<(Ns, Event)>>,
    pub cpus: Vec<Cpu>,
    pub vcpus: Vec<Known>,
    pub guests: [KnownGuest; GUESTS as usize],
    /// Events that have been looked at.
    pub events_seen: usize,
    pub now: Ns,
    /// Whether kicks take effect before time advances.
    pub kicks_at_once: bool,
    /// The release count that each vCPU publishes when it is preempted.
    pub releases: u32,
    /// What the worker of each guest does.
    pub workers: [Worker; GUESTS as usize],
    /// A reserved vCPU that may not be interrupted.
    pub watched: Option<VcpuId>,
}

impl Machine {
    pub fn new(cpus: usize, proxy: bool, kicks_at_once: bool) -> Self {
        let config = Config {
            proxy,
            slice_ns: 500 * US,
            park_ns: 300 * US,
            ..Config::new(cpus)
        };
        let mut policy = Scheduler::with_events(config, Vec::new());
        for _ in 0..GUESTS {
            let guest = policy.add_guest();
            policy.add_worker(guest);
        }
        let idle = Cpu {
            running: None,
            since: 0,
            until: Some(0),
            kicked: false,
            deferred: false,
        };
        let mut machine = Self {
            policy,
            cpus: vec![idle; cpus],
            vcpus: Vec::new(),
            guests: Default::default(),
            events_seen: 0,
            now: 0,
            kicks_at_once,
            releases: 0,
            workers: [Worker::Idle; GUESTS as usize],
            watched: None,
        };
        machine.serve();
        machine
    }

    pub fn apply(&mut self, op: Op) {
        let cpu = |number: u32| number as usize % self.cpus.len();
        let count = self.vcpus.len().max(1) as u32;
        let vcpu = |number: u32| VcpuId(number % count);
        match op {
            Op::Add(guest, params, pin) => self.add(guest, params, pin),
            Op::Wake(number) => self.policy.wake(vcpu(number), self.now),
            Op::Remove(number) => self.remove(vcpu(number)),
            Op::Pass(time) => self.pass(self.now + time),
            Op::Stop(number, why, hints) => self.stop_by_itself(cpu(number), why, hints),
            Op::Release(number, to) => self.release(cpu(number), to),
            Op::WakeBy(number, woken) => {
                let cpu = cpu(number);
                let woken = self.waiter(cpu, woken).unwrap_or(vcpu(woken));
                self.wake_by(cpu, woken);
            }
            Op::HandOver(number, lock, to) => {
                let cpu = cpu(number);
                let curr = self.cpus[cpu].running.map(|(_, curr)| curr);
                let to = curr.map_or(VcpuId(to), |curr| self.sibling(curr, VcpuId(to)));
                self.hand_over(cpu, lock, to);
            }
            Op::Spend(number, spent, sleeps) => self.spend_elsewhere(vcpu(number), spent, sleeps),
            Op::WorkerReady(guest) => self.worker_ready(guest),
            Op::WorkerStopped(guest, spent) => self.worker_stopped(guest, spent),
            Op::RemoveGuest(guest) => self.remove_guest(GuestId(guest)),
            Op::Reclaim(guest) => self.reclaim(GuestId(guest)),
            Op::Pause(guest) => self.pause(GuestId(guest)),
            Op::Resume(guest) => self.resume(GuestId(guest)),
            Op::SetReservation(number, reservation) => {
                self.set_reservation(vcpu(number), reservation);
            }
            Op::SetWeight(number, weight) => self.set_weight(vcpu(number), weight),
            Op::SetAllowed(number, pin) => self.set_allowed(vcpu(number), pin),
            Op::Offline(number) => {
                self.policy.cpu_offline(CpuId(cpu(number) as u32), self.now);
                assert!(!self.policy.online_cpus().is_empty(), "the last CPU stays");
            }
            Op::Online(number) => {
                self.policy.cpu_online(CpuId(cpu(number) as u32), self.now);
            }
            Op::AddCpu(number) => {
                self.policy.add_cpu(CpuId(cpu(number) as u32), self.now);
            }
            Op::RemoveCpu(number) => self.remove_cpu(CpuId(cpu(number) as u32)),
            Op::Defer(number, hints) => self.defer(cpu(number), &hints),
        }
        self.take_kicks();
        self.take_worker_orders();
        if self.kicks_at_once {
            self.serve();
        }
        self.check();
    }

    /// What the pool gives up, no reservation needs, and no vCPU is pinned to.
    fn remove_cpu(&mut self, cpu: CpuId) {
        let reduced = |machine: &Self| -> Vec<VcpuId> {
            let is_reduced = |&vcpu: &VcpuId| {
                let view = machine.policy.view(vcpu);
                view.is_some_and(|view| {
                    view.doing != Doing::Gone && (view.reduced.is_some() || view.displaced)
                })
            };
            machine.all().filter(is_reduced).collect()
        };
        let before = self.policy.pool_cpus();
        let all_online = self.policy.online_cpus() == before;
        match self.policy.remove_cpu(cpu, self.now) {
            Ok(()) if all_online => assert_eq!(reduced(self), [], "all that is promised fits"),
            Ok(()) => {}
            Err(_) => assert_eq!(self.policy.pool_cpus(), before),
        }
        assert!(!self.policy.online_cpus().is_empty(), "the last CPU stays");
    }

    fn worker_ready(&mut self, guest: u32) {
        let removed = self.guests[guest as usize].removed;
        if self.workers[guest as usize] == Worker::Idle && !removed {
            self.workers[guest as usize] = Worker::Waits;
            self.policy.worker_ready(WorkerId(guest), self.now);
        }
    }

    fn worker_stopped(&mut self, guest: u32, spent: Ns) {
        if let Worker::Works(donor) = self.workers[guest as usize] {
            self.finish(guest, donor, spent);
        }
    }

    fn remove(&mut self, vcpu: VcpuId) {
        self.policy.remove(vcpu, self.now);
        if let Some(known) = self.vcpus.get_mut(vcpu.index()) {
            known.removed = true;
        }
    }

    fn stop_by_itself(&mut self, cpu: usize, why: Why, hints: Hints) {
        let Some((_, curr)) = self.cpus[cpu].running else {
            return;
        };
        let wait = hints.wait.map(|wait| Wait {
            holder: self.sibling(curr, wait.holder),
            ..wait
        });
        let hints = Hints { wait, ..hints };
        let why = match why {
            Why::Rang => StopReason::Rang,
            Why::Halted => StopReason::Halted(None),
            Why::Sleeps(time) => StopReason::Halted(Some(self.now + time)),
            Why::Ended => StopReason::Ended,
        };
        self.vcpus[curr.index()].removed |= why == StopReason::Ended;
        self.stop(cpu, why, hints);
        self.pick(cpu);
    }

    fn release(&mut self, cpu: usize, to: Option<u32>) {
        let curr = self.cpus[cpu].running.map(|(_, curr)| curr);
        let to = curr.and_then(|curr| Some(self.sibling(curr, VcpuId(to?))));
        self.policy.release(CpuId(cpu as u32), to, self.now);
        if self.cpus[cpu].running.is_some() {
            self.stop(cpu, StopReason::Rang, Hints::default());
            self.pick(cpu);
        }
    }

    fn spend_elsewhere(&mut self, vcpu: VcpuId, spent: Ns, sleeps: bool) {
        if Some(vcpu) == self.watched {
            return;
        }
        if sleeps {
            let cpu = Some(CpuId(0));
            self.policy
                .charge_sleep(vcpu, CpuTime(spent), cpu, self.now);
        } else {
            self.policy.charge_elsewhere(vcpu, CpuTime(spent), self.now);
        }
        self.spend(vcpu, spent);
    }

    /// Requests a deferral for a CPU that should reschedule.
    fn defer(&mut self, cpu: usize, hints: &Hints) {
        let due = self.cpus[cpu].until.is_some_and(|until| until <= self.now);
        if (due || self.cpus[cpu].kicked)
            && let Some(end) = self.policy.defer(CpuId(cpu as u32), hints, self.now)
        {
            self.cpus[cpu].until = Some(end);
            self.cpus[cpu].kicked = false;
            self.cpus[cpu].deferred = true;
        }
    }

    pub fn pinning(&self, pin: u32) -> Option<CpuSet> {
        let all = CpuSet::first(self.cpus.len()).iter();
        let allowed: CpuSet = all.filter(|cpu| pin >> cpu.0 & 1 == 1).collect();
        (!allowed.is_empty()).then_some(allowed)
    }

    pub fn add(&mut self, guest: u32, params: SchedParams, pin: u32) {
        let allowed = self.pinning(pin);
        let guest = GuestId(guest);
        self.policy.free_held_bandwidth(self.now);
        if self.guests[guest.index()].removed {
            return;
        }
        if let Ok(vcpu) = self.policy.add_vcpu(guest, params, allowed) {
            let known = Known {
                guest,
                params,
                removed: false,
                reclaimed: false,
                changed: 0,
                allowance: Allowance::new(params, self.now),
                loses_reservation: false,
                overrun: 0,
                ran: 0,
                donor_for: 0,
                elsewhere: 0,
                blocks: false,
                guessed: false,
            };
            match self.vcpus.get_mut(vcpu.index()) {
                Some(before) => {
                    assert!(before.reclaimed, "{vcpu} names another vCPU");
                    *before = known;
                }
                None => self.vcpus.push(known),
            }
        }
    }

    /// Lets time pass. Each CPU reschedules when its decision ends.
    pub fn pass(&mut self, to: Ns) {
        loop {
            self.serve();
            let next = self.cpus.iter().filter_map(|cpu| cpu.until).min();
            match next.filter(|&next| next < to) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = to;
    }

    /// Every CPU that was kicked, or whose time is up, reschedules until none is left.
    pub fn serve(&mut self) {
        let due = |cpu: &Cpu, now| cpu.kicked || cpu.until.is_some_and(|until| until <= now);
        for _ in 0..10_000 {
            let Some(cpu) = self.cpus.iter().position(|cpu| due(cpu, self.now)) else {
                return;
            };
            let hints = Hints {
                releases: self.releases,
                ..Hints::default()
            };
            self.stop(cpu, StopReason::Preempted, hints);
            self.pick(cpu);
        }
        panic!("CPUs are kicked for ever");
    }

    pub fn stop(&mut self, cpu: usize, why: StopReason, hints: Hints) {
        if let Some((donor, curr)) = self.cpus[cpu].running.take() {
            let ran = self.now - self.cpus[cpu].since;
            self.vcpus[curr.index()].ran += ran;
            self.vcpus[donor.index()].donor_for += ran;
            let kind = hints.wait.map(|wait| wait.kind);
            self.vcpus[curr.index()].blocks = kind == Some(WaitKind::Block);
            self.vcpus[curr.index()].guessed = hints.is_guess;
            if let Some(until) = self.cpus[cpu].until {
                self.vcpus[donor.index()].overrun += self.now.saturating_sub(until);
            }
            let id = CpuId(cpu as u32);
            self.policy.stop(id, why, hints, CpuTime(ran), self.now);
        }
    }

    pub fn pick(&mut self, cpu: usize) {
        let decision = self.policy.pick(CpuId(cpu as u32), self.now);
        let present = self.policy.online_cpus().contains(CpuId(cpu as u32));
        assert!(
            present || decision.is_none(),
            "nothing runs on a CPU that is offline"
        );
        self.cpus[cpu] = Cpu {
            running: decision.map(|d| (d.donor, d.curr)),
            since: self.now,
            until: match decision {
                Some(decision) => decision.until,
                None => self.policy.next_timer().filter(|_| present),
            },
            kicked: false,
            deferred: false,
        };
        assert!(
            self.cpus[cpu].until.is_none_or(|until| until > self.now),
            "time goes on"
        );
        if let Some(decision) = decision
            && decision.until_release
        {
            let curr = &self.vcpus[decision.curr.index()];
            assert!(curr.guessed, "what rings is not looked at");
        }
        if let Some(decision) = decision
            && Some(decision.donor) == self.watched
        {
            let (_, budget, _) = self.view(decision.donor).unwrap().reserved.unwrap();
            let end = self.now + budget.unsigned_abs();
            assert_eq!(decision.until, Some(end), "it runs for all its budget");
        }
        self.take_kicks();
        self.take_worker_orders();
    }

    pub fn take_kicks(&mut self) {
        for cpu in self.policy.take_kicks().iter() {
            self.cpus[cpu.index()].kicked = true;
            let running = self.cpus[cpu.index()].running;
            assert!(
                self.watched.is_none() || running.map(|(donor, _)| donor) != self.watched,
                "it is not kicked"
            );
        }
    }

    pub fn spend(&mut self, vcpu: VcpuId, spent: Ns) {
        let known = self.vcpus.get_mut(vcpu.index());
        if let Some(known) = known.filter(|known| !known.reclaimed) {
            known.elsewhere += spent;
        }
    }

    /// The worker of `guest` stops, and `donor` is charged.
    pub fn finish(&mut self, guest: u32, donor: VcpuId, spent: Ns) {
        self.workers[guest as usize] = Worker::Idle;
        self.policy
            .worker_stopped(WorkerId(guest), CpuTime(spent), self.now);
        self.spend(donor, spent);
        self.take_worker_orders();
    }

    /// A worker works only when it has requested a grant, on a budget of its guest, and where nothing more
    /// urgent runs.
    pub fn take_worker_orders(&mut self) {
        for order in self.policy.take_worker_orders().collect::<Vec<_>>() {
            let WorkerOrder::Work(grant) = order else {
                continue;
            };
            let worker = &mut self.workers[grant.worker.index()];
            assert_eq!(*worker, Worker::Waits, "it has requested a grant");
            *worker = Worker::Works(grant.donor);
            assert_eq!(self.guest(grant.donor), Some(GuestId(grant.worker.0)));
            assert!(grant.limit > 0, "the donor has something left");
            let deadline = |vcpu| Some(self.view(vcpu)?.reserved?.2);
            if let Some((donor, _)) = self.policy.running(grant.cpu)
                && self.guest(donor) != self.guest(grant.donor)
                && deadline(donor).is_some()
            {
                assert!(deadline(grant.donor).is_some(), "best effort gives way");
            }
        }
    }

    pub fn view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        self.policy.view(vcpu)
    }

    pub fn guest(&self, vcpu: VcpuId) -> Option<GuestId> {
        let known = self.vcpus.get(vcpu.index());
        known
            .filter(|known| !known.reclaimed)
            .map(|known| known.guest)
    }

    /// The vCPUs whose names are not free.
    pub fn all(&self) -> impl Iterator<Item = VcpuId> {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        all.filter(|vcpu| !self.vcpus[vcpu.index()].reclaimed)
    }
}
