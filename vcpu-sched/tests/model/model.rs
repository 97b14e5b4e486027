//! A pool as a model: what can happen in a state, and what must hold.

use std::hash::Hasher;

use vcpu_sched::{CpuId, Doing, VcpuId};

use crate::action::{Action, Said};
use crate::owner::{Cpu, Owner, Worker};
use crate::pool::{Pool, Speech, UNIT};
use crate::promises;
use crate::search::{Model, Step};

impl Model for Pool {
    type State = Owner;
    type Action = Action;

    fn start(&self) -> Owner {
        Owner::new(self)
    }

    fn actions(&self, state: &Owner) -> Vec<Action> {
        let mut enabled = Enabled {
            pool: self,
            state,
            actions: Vec::new(),
        };
        enabled.all();
        enabled.actions
    }

    fn step(&self, state: &mut Owner, action: Action) -> Step {
        state.apply(self, action)
    }

    fn check(&self, state: &Owner) -> Result<(), String> {
        promises::check(self, state)
    }

    fn normal_form(&self, state: &Owner, to: &mut impl Hasher) {
        state.normal_form(to);
    }
}

/// Collects what can happen.
struct Enabled<'a> {
    pool: &'a Pool,
    state: &'a Owner,
    actions: Vec<Action>,
}

impl Enabled<'_> {
    fn all(&mut self) {
        let mut any_due = false;
        for (number, cpu) in self.state.cpus.iter().enumerate() {
            if self.state.must_pick(cpu) {
                any_due = true;
                self.serve(number as u8, cpu);
            }
        }
        if any_due && !self.pool.events.late {
            return;
        }
        for (number, cpu) in self.state.cpus.iter().enumerate() {
            if let Some((donor, curr)) = cpu.running {
                self.run(number as u8, cpu, donor, curr);
            }
        }
        self.others();
        self.time();
    }

    /// Time goes on while no CPU is late by more than a unit.
    fn time(&mut self) {
        let now = self.state.now;
        let is_late = |cpu: &Cpu| cpu.due().is_some_and(|due| due < now);
        if self.state.cpus.iter().any(is_late) {
            return;
        }
        self.actions.push(Action::Tick);
        let due = self.state.cpus.iter().any(|cpu| self.state.must_pick(cpu));
        if !due && self.state.next_due().is_some_and(|due| due > now + UNIT) {
            self.actions.push(Action::Pass);
        }
    }

    fn serve(&mut self, number: u8, cpu: &Cpu) {
        let Some((_, curr)) = cpu.running else {
            self.actions.push(Action::Serve(number, Said::Same));
            return;
        };
        for said in self.said(curr) {
            self.actions.push(Action::Serve(number, said));
            if self.pool.events.deferral && !cpu.deferred {
                self.actions.push(Action::Defer(number, said));
            }
        }
    }

    /// What a vCPU that runs may say.
    fn said(&self, vcpu: VcpuId) -> Vec<Said> {
        let others = self.others_of(vcpu);
        match self.pool.events.speech {
            Speech::Silent => vec![Said::Same],
            Speech::Spins | Speech::Sleeps => {
                let mut said = vec![Said::Same, Said::Nothing, Said::Holds, Said::Released];
                for &other in &others {
                    said.extend([Said::Spins(other), Said::SpinsTooLate(other)]);
                }
                // Lies: of itself, of another guest, of a vCPU that does not exist.
                let alien = self.alien(vcpu);
                said.extend(alien.map(Said::Spins));
                said.push(Said::Spins(vcpu.0 as u8));
                said
            }
            Speech::Inferred => vec![
                Said::Same,
                Said::SeenFree,
                Said::SeenHolding,
                Said::SeenSpinning,
            ],
        }
    }

    fn others_of(&self, vcpu: VcpuId) -> Vec<u8> {
        let members = &self.state.members;
        let own = members.iter().find(|own| own.contains(&(vcpu.0 as u8)));
        let own = own.into_iter().flatten().copied();
        own.filter(|&other| u32::from(other) != vcpu.0).collect()
    }

    /// A vCPU of another guest.
    fn alien(&self, vcpu: VcpuId) -> Option<u8> {
        let others = self.state.members.iter();
        let mut others = others.filter(|own| !own.contains(&(vcpu.0 as u8)));
        others.find_map(|own| own.first().copied())
    }

    /// What the vCPU that runs can do by itself.
    fn run(&mut self, number: u8, cpu: &Cpu, donor: VcpuId, curr: VcpuId) {
        let events = self.pool.events;
        let others = self.others_of(curr);
        let is_silent = events.speech == Speech::Silent;
        for said in self.said(curr) {
            if !is_silent {
                self.actions.push(Action::Ring(number, said));
            }
        }
        let mut halts = vec![Said::Nothing];
        match events.speech {
            Speech::Sleeps => halts.extend(others.iter().map(|&on| Said::Sleeps(on))),
            // It is still said to spin or to hold something.
            Speech::Spins => halts.extend(others.first().map(|&on| Said::Spins(on))),
            Speech::Inferred => halts = vec![Said::SeenFree, Said::SeenHolding],
            Speech::Silent => {}
        }
        for said in halts {
            self.actions.push(Action::Halt(number, said));
            if events.timed_halts {
                self.actions.push(Action::HaltFor(number, said));
            }
        }
        if events.ends {
            self.actions.push(Action::End(number));
        }
        if events.steal && cpu.stolen == 0 && cpu.since < self.state.now {
            self.actions.push(Action::Steal(number));
        }
        if matches!(events.speech, Speech::Spins | Speech::Sleeps) && donor != curr {
            self.actions.push(Action::Release(number, None));
            let to = others.iter().map(|&to| Action::Release(number, Some(to)));
            self.actions.extend(to);
        }
        if events.speech == Speech::Sleeps {
            for to in others.iter().copied().chain(self.alien(curr)) {
                self.actions.push(Action::HandOver(number, 0, to));
                self.actions.push(Action::HandOver(number, 1, to));
                self.actions.push(Action::WakeBy(number, to));
            }
        }
    }

    /// What does not come from a vCPU that runs.
    fn others(&mut self) {
        let events = self.pool.events;
        for vcpu in 0..self.state.vcpus.len() as u8 {
            self.happen_to(vcpu);
        }
        for (number, guest) in self.state.guests.iter().enumerate() {
            let number = number as u8;
            if events.pauses && guest.known && guest.paused {
                self.actions.push(Action::Resume(number));
            } else if events.pauses && guest.known && !guest.removed {
                self.actions.push(Action::Pause(number));
            }
            if events.ends {
                let action = match (guest.known, guest.removed) {
                    // The lowest name is given first.
                    (false, _) => Action::Admit(self.lowest_free_guest()),
                    (true, true) => Action::Reclaim(number),
                    (true, false) => Action::RemoveGuest(number),
                };
                if !self.actions.contains(&action) {
                    self.actions.push(action);
                }
            }
            if !events.workers || !guest.known {
                continue;
            }
            match guest.worker {
                Worker::Idle if !guest.removed => self.actions.push(Action::WorkerReady(number)),
                Worker::Idle | Worker::Waits => {}
                Worker::Works(_) => self.actions.push(Action::WorkerStops(number)),
            }
        }
        if events.hotplug {
            let online = self.state.policy.online_cpus();
            for cpu in 0..self.pool.cpus as u8 {
                match online.contains(CpuId(cpu.into())) {
                    true if online.len() > 1 => self.actions.push(Action::Offline(cpu)),
                    true => {}
                    false => self.actions.push(Action::Online(cpu)),
                }
            }
        }
    }

    fn lowest_free_guest(&self) -> u8 {
        let known = self.state.guests.iter().take_while(|guest| guest.known);
        known.count() as u8
    }

    fn happen_to(&mut self, vcpu: u8) {
        let events = self.pool.events;
        let Some(view) = self.state.policy.view(VcpuId(vcpu.into())) else {
            return;
        };
        if view.doing == Doing::Gone {
            return;
        }
        // For one that could run, that is as if it came while it runs.
        let now = matches!(
            view.doing,
            Doing::Halted | Doing::Running(_) | Doing::Paused
        );
        if now {
            self.actions.push(Action::Wake(vcpu));
        }
        if events.ends {
            self.actions.push(Action::Remove(vcpu));
        }
        if events.spending && view.doing == Doing::Halted {
            self.actions.push(Action::Spend(vcpu));
            let cpus = 0..self.pool.cpus as u8;
            self.actions
                .extend(cpus.map(|cpu| Action::SpendSleeping(vcpu, cpu)));
        } else if events.spending {
            self.actions.push(Action::Spend(vcpu));
        }
        for number in 0..events.reservations.len() as u8 {
            self.actions.push(Action::SetReservation(vcpu, number));
        }
        if events.weights {
            self.actions.push(Action::SetWeight(vcpu));
        }
        let pins = events.pins.iter();
        self.actions
            .extend(pins.map(|&pin| Action::SetAllowed(vcpu, pin)));
    }
}
