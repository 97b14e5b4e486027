//! What the owner of the host CPUs calls.

use std::fmt::Debug;

use crate::classes::admission::AdmissionError;
use crate::classes::reservation::SchedParams;
use crate::config::Config;
use crate::counters::Counters;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, CpuTime, GuestId, MAX_VCPUS, Ns, VcpuId, WorkerId};
use crate::policy::Policy;
use crate::rules::pick::Decision;
use crate::rules::pool_cpus::CpuRemovalError;
use crate::rules::stop::StopReason;
use crate::state::blocked_on::Hints;
use crate::state::worker_table::{Grant, WorkerOrder, WorkerState};
use crate::view::{CpuView, Doing, VcpuView};

use super::pool::{CpuState, RoundRobin, RoundRobinGuest, RoundRobinVcpu, RoundRobinWorker, State};

/// CPU time of a worker's grant, ns.
const GRANT_NS: Ns = 250_000;

impl<E: Events + Debug + Send> Policy<E> for RoundRobin<E> {
    fn add_guest(&mut self) -> GuestId {
        self.guests.add(RoundRobinGuest::default())
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
        let allowed = allowed.unwrap_or(self.places).and(self.places);
        if allowed.and(self.all).is_empty() {
            return Err(AdmissionError::NoCpu);
        }
        let vcpu = self.vcpus.add(RoundRobinVcpu {
            guest,
            allowed,
            state: State::Halted(None),
            last_cpu: None,
            wake_pending: false,
            ending: false,
        });
        self.guests[guest].vcpus.push(vcpu);
        self.counting.add_vcpu(vcpu);
        Ok(vcpu)
    }

    fn remove(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus.get(vcpu).map(|v| v.state) {
            None | Some(State::Gone) => {}
            Some(State::Running(cpu)) => {
                self.vcpus[vcpu].ending = true;
                self.kick(cpu, now);
            }
            Some(State::Halted(_) | State::Runnable(_) | State::Paused) => self.finish(vcpu, now),
        }
    }

    fn remove_guest(&mut self, guest: GuestId, now: Ns) -> bool {
        let Some(row) = self.guests.get_mut(guest).filter(|row| !row.ending) else {
            return false;
        };
        row.ending = true;
        let vcpus = row.vcpus.clone();
        self.emit(now, Event::GuestRemoved(guest));
        for vcpu in vcpus {
            self.remove(vcpu, now);
        }
        self.stop_workers(guest);
        true
    }

    fn reclaim_guest(&mut self, guest: GuestId, now: Ns) -> bool {
        let gone = |&vcpu: &VcpuId| self.vcpus[vcpu].state == State::Gone;
        let row = self.guests.get(guest);
        let Some(row) = row.filter(|row| row.ending && row.vcpus.iter().all(gone)) else {
            return false;
        };
        let workers: Vec<_> = self.workers_of(guest).collect();
        if workers.iter().any(|&worker| self.works(worker)) {
            return false;
        }
        for vcpu in row.vcpus.clone() {
            self.vcpus.remove(vcpu);
            self.counting.remove_vcpu(vcpu);
        }
        for worker in workers {
            self.workers.remove(worker);
            self.worker_orders.retain(|order| order.worker() != worker);
        }
        self.guests.remove(guest);
        self.emit(now, Event::GuestReclaimed(guest));
        true
    }

    fn pause(&mut self, guest: GuestId, now: Ns) -> bool {
        let row = self.guests.get_mut(guest);
        let Some(row) = row.filter(|row| !row.paused && !row.ending) else {
            return false;
        };
        row.paused = true;
        let vcpus = row.vcpus.clone();
        self.emit(now, Event::Paused(guest));
        for vcpu in vcpus {
            match self.vcpus[vcpu].state {
                State::Running(cpu) => self.kick(cpu, now),
                State::Runnable(_) => {
                    self.end_wait(vcpu, now);
                    self.queue.retain(|&queued| queued != vcpu);
                    self.vcpus[vcpu].state = State::Paused;
                }
                State::Halted(_) | State::Paused | State::Gone => {}
            }
        }
        self.stop_workers(guest);
        true
    }

    fn resume(&mut self, guest: GuestId, now: Ns) -> bool {
        let Some(row) = self.guests.get_mut(guest).filter(|row| row.paused) else {
            return false;
        };
        row.paused = false;
        let vcpus = row.vcpus.clone();
        self.emit(now, Event::Resumed(guest));
        for vcpu in vcpus {
            if self.vcpus[vcpu].state == State::Paused {
                self.enqueue(vcpu, now);
                self.kick_for(vcpu, now);
            }
        }
        let workers: Vec<_> = self.workers_of(guest).collect();
        for worker in workers {
            if self.workers[worker].state == WorkerState::Waiting {
                self.workers[worker].state = WorkerState::Idle;
                self.worker_ready(worker, now);
            }
        }
        true
    }

    fn set_allowed(
        &mut self,
        vcpu: VcpuId,
        allowed: Option<CpuSet>,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        let allowed = allowed.unwrap_or(self.places).and(self.places);
        if allowed.and(self.all).is_empty() {
            return Err(AdmissionError::NoCpu);
        }
        let v = self.vcpus.get_mut(vcpu);
        let Some(v) = v.filter(|v| v.state != State::Gone && !v.ending) else {
            return Err(AdmissionError::NoVcpu(vcpu));
        };
        v.allowed = allowed;
        let state = v.state;
        match state {
            State::Running(cpu) if !self.cpus_of(vcpu).contains(cpu) => self.kick(cpu, now),
            _ => self.kick_for(vcpu, now),
        }
        self.emit(now, Event::AllowedChanged(vcpu));
        Ok(())
    }

    fn pick(&mut self, cpu: CpuId, now: Ns) -> Option<Decision> {
        self.cpus[cpu].state = CpuState::Picking;
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
        let CpuState::Running { vcpu, .. } = here.state else {
            return;
        };
        here.state = CpuState::Picking;
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
            State::Runnable(_) | State::Running(_) | State::Paused => v.wake_pending = true,
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
        self.workers.add(RoundRobinWorker {
            guest,
            state: WorkerState::Idle,
        })
    }

    /// It works at once, wherever the first vCPU of its guest ran last: the host's scheduler shares the CPU.
    fn worker_ready(&mut self, worker: WorkerId, _now: Ns) {
        let Some(known) = self.workers.get_mut(worker) else {
            return;
        };
        let guest = &self.guests[known.guest];
        let Some(&donor) = guest.vcpus.first().filter(|_| !guest.ending) else {
            return;
        };
        if known.state != WorkerState::Idle {
            return;
        }
        if guest.paused {
            known.state = WorkerState::Waiting;
            return;
        }
        let cpus = self.cpus_of(donor);
        let last = self.vcpus[donor].last_cpu;
        let last = last.filter(|&cpu| cpus.contains(cpu));
        if let Some(cpu) = last.or_else(|| cpus.lowest()) {
            self.workers[worker].state = WorkerState::Working { cpu, donor };
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
        known.state = WorkerState::Idle;
        if let Some(&donor) = self.guests[known.guest].vcpus.first() {
            self.counting.counters_mut(donor).devices_ns += spent.0;
            self.charge_elsewhere(donor, spent, now);
        }
    }

    fn take_worker_orders(&mut self) -> Vec<WorkerOrder> {
        std::mem::take(&mut self.worker_orders)
    }

    fn pool_cpus(&self) -> CpuSet {
        self.all
    }

    fn add_cpu(&mut self, cpu: CpuId, now: Ns) -> bool {
        if self.all.contains(cpu) || !self.places.contains(cpu) {
            return false;
        }
        self.all.insert(cpu);
        self.cpu_online(cpu, now)
    }

    fn remove_cpu(&mut self, cpu: CpuId, now: Ns) -> Result<(), CpuRemovalError> {
        let mut left = self.all;
        if !left.contains(cpu) {
            return Err(CpuRemovalError::NotThere(cpu));
        }
        left.remove(cpu);
        if left.and(self.online).is_empty() {
            return Err(CpuRemovalError::Last);
        }
        let pinned = self.vcpus.ids().filter(|&vcpu| {
            let v = &self.vcpus[vcpu];
            v.state != State::Gone && v.allowed.and(left).is_empty()
        });
        let pinned: Vec<VcpuId> = pinned.collect();
        if !pinned.is_empty() {
            return Err(CpuRemovalError::Pinned(pinned));
        }
        self.all = left;
        self.cpu_offline(cpu, now);
        Ok(())
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
                State::Halted(_) if self.guests[vcpu.guest].paused => Doing::Paused,
                State::Halted(_) => Doing::Halted,
                State::Runnable(_) => Doing::Runnable,
                State::Running(cpu) => Doing::Running(cpu),
                State::Paused => Doing::Paused,
                State::Gone => Doing::Gone,
            },
            reserved: None,
            next_reservation: None,
            reduced: None,
            displaced: self.online.and(vcpu.allowed).is_empty(),
            waits_for: None,
            is_suspicion: false,
            spins: false,
        })
    }

    fn view_cpu(&self, cpu: CpuId) -> Option<CpuView> {
        let CpuState::Running { vcpu, .. } = self.cpus.get(cpu)?.state else {
            return None;
        };
        Some(CpuView {
            donor: vcpu,
            curr: vcpu,
            lock: 0,
            is_suspect: false,
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
