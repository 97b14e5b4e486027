//! The owner of the host CPUs, as the policy documents it: what it keeps for each CPU, vCPU, guest and worker, and
//! how it calls the policy.

use std::hash::Hasher;

use vcpu_sched::sim::normal_form;
use vcpu_sched::{
    CpuId, CpuTime, Doing, GuestId, Hints, Ns, Scheduler, StopReason, VcpuId, Wait, WaitKind,
    WorkerId, WorkerOrder,
};

use crate::action::{Action, Said};
use crate::bucket::Bucket;
use crate::pool::{HALT_TIME, Pool, UNIT, WEIGHT, cpus};
use crate::search::{Step, write};

/// What one CPU does.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Donor, and what runs.
    pub running: Option<(VcpuId, VcpuId)>,
    pub since: Ns,
    /// When it picks by itself.
    pub until: Option<Ns>,
    /// When it was kicked.
    pub kicked: Option<Ns>,
    /// Its kick is deferred.
    pub deferred: bool,
    /// What the host has taken of the time since then, ns.
    pub stolen: Ns,
}

impl Cpu {
    /// When it has to pick, if anything says so.
    pub fn due(&self) -> Option<Ns> {
        [self.until, self.kicked].into_iter().flatten().min()
    }
}

/// What has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By the vCPU itself, on a CPU, ns.
    pub ran: Ns,
    /// On its budget, on a CPU, ns.
    pub charged: Ns,
    /// By other threads for it, ns.
    pub elsewhere: Ns,
}

/// A vCPU.
#[derive(Clone, Debug)]
pub struct Known {
    pub guest: u8,
    /// The CPUs on which it may run, as a mask.
    pub pin: u8,
    /// A wake-up came while it was not halted.
    pub wake_pending: bool,
    pub hints: Hints,
    pub used: Used,
    pub bucket: Option<Bucket>,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Idle,
    Waits,
    /// On this budget.
    Works(VcpuId),
}

/// A guest.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its names exist.
    pub known: bool,
    pub removed: bool,
    pub paused: bool,
    pub worker: Worker,
}

/// A state.
#[derive(Clone, Debug)]
pub struct Owner {
    pub policy: Scheduler,
    pub now: Ns,
    pub cpus: Vec<Cpu>,
    /// `None`: the name is free.
    pub vcpus: Vec<Option<Known>>,
    pub guests: Vec<Guest>,
    /// Which vCPUs each guest has.
    pub members: Vec<Vec<u8>>,
}

/// A time at which no time of the pool lies before the origin.
const BEGIN: Ns = 1_000 * UNIT;

impl Owner {
    /// All guests have been added, and each vCPU has been woken.
    pub fn new(pool: &Pool) -> Self {
        let idle = Cpu {
            running: None,
            since: BEGIN,
            until: None,
            kicked: None,
            deferred: false,
            stolen: 0,
        };
        let mut owner = Self {
            policy: Scheduler::new(pool.config()),
            now: BEGIN,
            cpus: vec![idle; pool.cpus],
            vcpus: Vec::new(),
            guests: Vec::new(),
            members: vec![Vec::new(); pool.guests.len()],
        };
        for guest in 0..pool.guests.len() {
            owner.admit(pool, guest as u8);
        }
        for cpu in 0..pool.cpus {
            owner.pick(cpu);
        }
        for vcpu in 0..owner.vcpus.len() {
            owner.policy.wake(VcpuId(vcpu as u32), BEGIN);
        }
        owner.follow_orders();
        owner
    }

    /// Adds the guest with this number. What is refused is left out.
    fn admit(&mut self, pool: &Pool, number: u8) {
        self.policy.free_held_bandwidth(self.now);
        let guest = self.policy.add_guest();
        assert_eq!(guest, GuestId(number.into()), "names are given in order");
        assert_eq!(self.policy.add_worker(guest), WorkerId(number.into()));
        let known = Guest {
            known: true,
            removed: false,
            paused: false,
            worker: Worker::Idle,
        };
        match self.guests.get_mut(usize::from(number)) {
            Some(place) => *place = known,
            None => self.guests.push(known),
        }
        self.members[usize::from(number)].clear();
        for vcpu in pool.guests[usize::from(number)] {
            let pin = cpus(vcpu.pin);
            let Ok(id) = self.policy.add_vcpu(guest, vcpu.params, Some(pin)) else {
                continue;
            };
            let known = Known {
                guest: number,
                pin: vcpu.pin,
                wake_pending: false,
                hints: Hints::default(),
                used: Used::default(),
                bucket: Bucket::new(pool, &vcpu.params),
            };
            match self.vcpus.get_mut(id.index()) {
                Some(place) => *place = Some(known),
                None => self.vcpus.push(Some(known)),
            }
            self.members[usize::from(number)].push(id.0 as u8);
        }
    }

    /// Carries out a step.
    pub fn apply(&mut self, pool: &Pool, action: Action) -> Step {
        let id = |vcpu: u8| VcpuId(vcpu.into());
        let cpu_id = |cpu: u8| CpuId(cpu.into());
        let mut step = Step::Progress;
        match action {
            Action::Tick => {
                self.now = self
                    .next_due()
                    .map_or(self.now + UNIT, |due| due.min(self.now + UNIT))
            }
            Action::Pass => self.now = self.next_due().unwrap_or(self.now),
            Action::Serve(cpu, said) => {
                let row = &self.cpus[usize::from(cpu)];
                let at_once = row.since == self.now || row.running.is_none();
                if said == Said::Same && at_once && row.kicked.is_some() {
                    step = Step::Consequence;
                }
                self.stop(cpu, StopReason::Preempted, said);
            }
            Action::Defer(cpu, said) => self.defer(cpu, said),
            Action::Ring(cpu, said) => self.stop(cpu, StopReason::Rang, said),
            Action::Halt(cpu, said) => self.stop(cpu, StopReason::Halted(None), said),
            Action::HaltFor(cpu, said) => {
                let until = self.now + HALT_TIME * UNIT;
                self.stop(cpu, StopReason::Halted(Some(until)), said);
            }
            Action::End(cpu) => self.stop(cpu, StopReason::Ended, Said::Nothing),
            Action::Release(cpu, to) => {
                self.policy.release(cpu_id(cpu), to.map(id), self.now);
                self.stop(cpu, StopReason::Rang, Said::Released);
            }
            Action::HandOver(cpu, lock, to) => {
                let lock = lock.into();
                self.policy.hand_over(cpu_id(cpu), lock, id(to), self.now);
            }
            Action::WakeBy(cpu, vcpu) => {
                self.note_wake_up(id(vcpu));
                self.policy.wake_by(cpu_id(cpu), id(vcpu), self.now);
            }
            Action::Wake(vcpu) => {
                self.note_wake_up(id(vcpu));
                self.policy.wake(id(vcpu), self.now);
            }
            Action::Spend(vcpu) => {
                self.policy
                    .charge_elsewhere(id(vcpu), CpuTime(UNIT), self.now);
                self.spend(id(vcpu), UNIT);
            }
            Action::SpendSleeping(vcpu, cpu) => {
                let cpu = Some(cpu_id(cpu));
                self.policy
                    .charge_sleep(id(vcpu), CpuTime(UNIT), cpu, self.now);
                self.spend(id(vcpu), UNIT);
            }
            Action::Steal(cpu) => {
                let row = &mut self.cpus[usize::from(cpu)];
                let taken = self.now - row.since - row.stolen;
                row.stolen += taken;
                if let Some((_, curr)) = row.running {
                    self.policy.host_took(curr, CpuTime(taken));
                }
            }
            Action::SetReservation(vcpu, number) => {
                let to = pool.events.reservations[usize::from(number)];
                let _ = self.policy.set_reservation(id(vcpu), to, self.now);
            }
            Action::SetWeight(vcpu) => {
                let _ = self.policy.set_weight(id(vcpu), WEIGHT, self.now);
            }
            Action::SetAllowed(vcpu, pin) => {
                let changed = self.policy.set_allowed(id(vcpu), Some(cpus(pin)), self.now);
                if let Some(known) = self.known(id(vcpu)).filter(|_| changed.is_ok()) {
                    known.pin = pin;
                }
            }
            Action::Pause(guest) => {
                assert!(self.policy.pause(GuestId(guest.into()), self.now));
                self.guests[usize::from(guest)].paused = true;
            }
            Action::Resume(guest) => {
                assert!(self.policy.resume(GuestId(guest.into()), self.now));
                self.guests[usize::from(guest)].paused = false;
            }
            Action::Remove(vcpu) => self.policy.remove(id(vcpu), self.now),
            Action::RemoveGuest(guest) => {
                assert!(self.policy.remove_guest(GuestId(guest.into()), self.now));
                let known = &mut self.guests[usize::from(guest)];
                known.removed = true;
                if known.worker == Worker::Waits {
                    known.worker = Worker::Idle;
                }
            }
            Action::Reclaim(guest) => self.reclaim(guest),
            Action::Admit(guest) => self.admit(pool, guest),
            Action::WorkerReady(guest) => {
                self.guests[usize::from(guest)].worker = Worker::Waits;
                self.policy.worker_ready(WorkerId(guest.into()), self.now);
            }
            Action::WorkerStops(guest) => {
                let known = &mut self.guests[usize::from(guest)];
                let worker = std::mem::replace(&mut known.worker, Worker::Idle);
                let Worker::Works(donor) = worker else {
                    panic!("a worker stops that works");
                };
                let spent = CpuTime(UNIT);
                self.policy
                    .worker_stopped(WorkerId(guest.into()), spent, self.now);
                self.spend(donor, UNIT);
            }
            Action::Offline(cpu) => assert!(self.policy.cpu_offline(cpu_id(cpu), self.now)),
            Action::Online(cpu) => assert!(self.policy.cpu_online(cpu_id(cpu), self.now)),
        }
        self.follow_orders();
        step
    }

    /// Removed guests can be reclaimed when nothing runs for them, and not before.
    fn reclaim(&mut self, guest: u8) {
        let is_member = |vcpu: VcpuId| self.members[usize::from(guest)].contains(&(vcpu.0 as u8));
        let mut running = self.cpus.iter().filter_map(|cpu| cpu.running);
        let runs = running.any(|(donor, curr)| is_member(donor) || is_member(curr));
        let works = matches!(self.guests[usize::from(guest)].worker, Worker::Works(_));
        let reclaimed = self.policy.reclaim_guest(GuestId(guest.into()), self.now);
        assert_eq!(reclaimed, !runs && !works, "nothing is forgotten that runs");
        if reclaimed {
            for vcpu in std::mem::take(&mut self.members[usize::from(guest)]) {
                self.vcpus[usize::from(vcpu)] = None;
            }
            self.guests[usize::from(guest)].known = false;
        }
    }

    fn stop(&mut self, cpu: u8, why: StopReason, said: Said) {
        let row = &mut self.cpus[usize::from(cpu)];
        if let Some((donor, curr)) = row.running.take() {
            let ran = self.now - row.since - row.stolen;
            let hints = self.hints(curr, said);
            if let Some(known) = self.known(curr) {
                known.used.ran += ran;
                known.hints = hints;
            }
            self.charge(donor, ran);
            let id = CpuId(cpu.into());
            self.policy.stop(id, why, hints, CpuTime(ran), self.now);
            if matches!(why, StopReason::Halted(_)) {
                self.require_no_lost_wake_up(curr);
            }
        }
        self.pick(usize::from(cpu));
    }

    /// A wake-up that overtakes a halt ends it.
    fn require_no_lost_wake_up(&mut self, vcpu: VcpuId) {
        let halted = self.policy.view(vcpu).map(|view| view.doing) == Some(Doing::Halted);
        if let Some(known) = self.known(vcpu) {
            let pending = std::mem::take(&mut known.wake_pending);
            assert!(!pending || !halted, "a wake-up of {vcpu} is lost");
        }
    }

    fn note_wake_up(&mut self, vcpu: VcpuId) {
        let doing = self.policy.view(vcpu).map(|view| view.doing);
        let may_be_halted = matches!(doing, Some(Doing::Halted | Doing::Paused));
        if let Some(known) = self.known(vcpu) {
            known.wake_pending |= !may_be_halted;
        }
    }

    /// What `vcpu` says.
    fn hints(&self, vcpu: VcpuId, said: Said) -> Hints {
        let before = self.vcpus[vcpu.index()].as_ref();
        let before = before.map(|known| known.hints).unwrap_or_default();
        let releases = |of: u8| {
            let known = self.vcpus.get(usize::from(of)).and_then(Option::as_ref);
            known.map_or(0, |known| known.hints.releases)
        };
        let still = Hints {
            releases: before.releases,
            ..Hints::default()
        };
        let wait = |kind, holder: u8, holder_releases| {
            Some(Wait {
                kind,
                lock: 0,
                holder: VcpuId(holder.into()),
                holder_releases,
            })
        };
        let seen = |depth, waits| Hints {
            depth,
            waits,
            is_guess: true,
            ..still
        };
        match said {
            Said::Same => before,
            Said::Nothing => still,
            Said::Holds => Hints { depth: 1, ..still },
            Said::Released => Hints {
                releases: before.releases ^ 1,
                ..still
            },
            Said::Spins(on) => Hints {
                depth: 1,
                wait: wait(WaitKind::Spin, on, releases(on)),
                ..still
            },
            Said::SpinsTooLate(on) => Hints {
                depth: 1,
                wait: wait(WaitKind::Spin, on, releases(on) ^ 1),
                ..still
            },
            Said::Sleeps(on) => Hints {
                wait: wait(WaitKind::Block, on, releases(on)),
                ..still
            },
            Said::SeenFree => seen(0, false),
            Said::SeenHolding => seen(1, false),
            Said::SeenSpinning => seen(1, true),
        }
    }

    fn pick(&mut self, cpu: usize) {
        let id = CpuId(cpu as u32);
        let decision = self.policy.pick(id, self.now);
        let present = self.policy.online_cpus().contains(id);
        assert!(
            present || decision.is_none(),
            "{id} is offline and runs nothing"
        );
        let until = match decision {
            Some(decision) => decision.until,
            None => self.policy.next_timer().filter(|_| present),
        };
        assert!(until.is_none_or(|until| until > self.now), "time goes on");
        self.cpus[cpu] = Cpu {
            running: decision.map(|d| (d.donor, d.curr)),
            since: self.now,
            until,
            kicked: None,
            deferred: false,
            stolen: 0,
        };
        if let Some(decision) = decision {
            let now = self.now;
            let left = self
                .policy
                .view(decision.donor)
                .and_then(|view| view.reserved);
            let bucket = self
                .known(decision.donor)
                .and_then(|known| known.bucket.as_mut());
            if let (Some(bucket), Some((_, left, _))) = (bucket, left) {
                bucket.pour(0, now);
                let fits = bucket.has_room_for(left.max(0).unsigned_abs());
                assert!(fits, "{} is picked beyond its budgets", decision.donor);
            }
        }
    }

    fn defer(&mut self, cpu: u8, said: Said) {
        let Some((_, curr)) = self.cpus[usize::from(cpu)].running else {
            return;
        };
        let hints = self.hints(curr, said);
        if let Some(end) = self.policy.defer(CpuId(cpu.into()), &hints, self.now) {
            let row = &mut self.cpus[usize::from(cpu)];
            assert!(!row.deferred, "a preemption is deferred once");
            (row.until, row.kicked, row.deferred) = (Some(end), None, true);
        }
    }

    fn known(&mut self, vcpu: VcpuId) -> Option<&mut Known> {
        self.vcpus.get_mut(vcpu.index())?.as_mut()
    }

    fn charge(&mut self, donor: VcpuId, ran: Ns) {
        let now = self.now;
        if let Some(known) = self.known(donor) {
            known.used.charged += ran;
            if let Some(bucket) = &mut known.bucket {
                bucket.pour(ran, now);
            }
        }
    }

    fn spend(&mut self, vcpu: VcpuId, spent: Ns) {
        if let Some(known) = self.known(vcpu) {
            known.used.elsewhere += spent;
            if let Some(bucket) = &mut known.bucket {
                bucket.add(spent);
            }
        }
    }

    /// Kicks and orders for workers since the last call.
    fn follow_orders(&mut self) {
        for cpu in self.policy.take_kicks().iter() {
            let row = &mut self.cpus[cpu.index()];
            row.kicked = row.kicked.or(Some(self.now));
        }
        let orders: Vec<_> = self.policy.take_worker_orders().collect();
        for order in orders {
            let WorkerOrder::Work(grant) = order else {
                continue;
            };
            let donor = self.vcpus[grant.donor.index()].as_ref();
            let known = &mut self.guests[grant.worker.index()];
            assert_eq!(known.worker, Worker::Waits, "it has requested a grant");
            let of_guest = donor.map(|donor| u32::from(donor.guest));
            assert_eq!(of_guest, Some(grant.worker.0), "a grant stays in its guest");
            assert!(grant.limit > 0, "the donor has something left");
            known.worker = Worker::Works(grant.donor);
        }
    }

    /// When something is due next that is not due now.
    pub fn next_due(&self) -> Option<Ns> {
        let cpus = self.cpus.iter().filter_map(|cpu| cpu.until);
        let timer = self.policy.next_timer();
        cpus.chain(timer).filter(|&due| due > self.now).min()
    }

    /// Whether the CPU has to pick.
    pub fn must_pick(&self, cpu: &Cpu) -> bool {
        cpu.due().is_some_and(|due| due <= self.now)
    }

    pub fn normal_form(&self, to: &mut impl Hasher) {
        write(normal_form(&self.policy, self.now).as_bytes(), to);
        let relative = |at: Option<Ns>| at.map_or(i64::MAX, |at| at as i64 - self.now as i64);
        for cpu in &self.cpus {
            to.write_i64(relative(cpu.until));
            to.write_i64(relative(cpu.kicked));
            to.write_u8(u8::from(cpu.deferred));
            to.write_u64(cpu.stolen);
        }
        for known in self.vcpus.iter().flatten() {
            to.write_u64(
                known
                    .bucket
                    .as_ref()
                    .map_or(0, |bucket| bucket.level(self.now)),
            );
        }
        for guest in &self.guests {
            to.write_u8(match guest.worker {
                Worker::Idle => 0,
                Worker::Waits => 1,
                Worker::Works(donor) => 2 + donor.0 as u8,
            });
        }
    }
}
