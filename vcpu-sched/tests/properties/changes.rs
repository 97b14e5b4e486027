//! Guests and vCPUs that change while they run.

use vcpu_sched::{Event, Exhaustion, GuestId, Ns, Reservation, SchedParams, VcpuId, WorkerId};

use crate::machine::{Machine, Worker};

/// A guest, as its owner has recorded it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KnownGuest {
    pub removed: bool,
    pub paused: bool,
}

/// How much a vCPU with hard reservations may have been charged.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// For the reservations before the present one, ns; `None` if one of them was not hard.
    before: Option<Ns>,
    present: SchedParams,
    since: Ns,
}

impl Allowance {
    pub fn new(params: SchedParams, now: Ns) -> Self {
        Self {
            before: Some(0),
            present: params,
            since: now,
        }
    }

    /// At most so much, ns: one budget for each period that has passed, one for the period under way, and one more
    /// for the wake-up rule. `None`: any.
    pub fn at(&self, now: Ns) -> Option<Ns> {
        let SchedParams::Reserved(r) = self.present else {
            return None;
        };
        let hard = r.exhaustion() == Exhaustion::Hard;
        let periods = (now - self.since) / r.period() + 2;
        self.before
            .filter(|_| hard)
            .map(|before| before + periods * r.budget())
    }

    /// `params` are in force from `at` on.
    fn change(&mut self, params: SchedParams, at: Ns) {
        self.before = self.at(at);
        (self.present, self.since) = (params, at);
    }
}

impl Machine {
    pub fn remove_guest(&mut self, guest: GuestId) {
        let known = &mut self.guests[guest.index()];
        let removed = self.policy.remove_guest(guest, self.now);
        assert_eq!(removed, !known.removed);
        *known = KnownGuest {
            removed: true,
            paused: known.paused,
        };
        for vcpu in self.vcpus.iter_mut().filter(|v| v.guest == guest) {
            vcpu.removed = true;
        }
        let worker = &mut self.workers[guest.index()];
        if *worker == Worker::Waits {
            *worker = Worker::Idle;
        }
    }

    /// No name is free as long as a CPU or a worker runs for the guest.
    pub fn reclaim(&mut self, guest: GuestId) {
        let known = self.guests[guest.index()];
        let of_guest = |vcpu: VcpuId| self.vcpus[vcpu.index()].guest == guest;
        let running = self.cpus.iter().filter_map(|cpu| cpu.running);
        let runs = running
            .into_iter()
            .any(|(donor, curr)| of_guest(donor) || of_guest(curr));
        let works = matches!(self.workers[guest.index()], Worker::Works(_));
        let reclaimed = self.policy.reclaim_guest(guest, self.now);
        assert_eq!(reclaimed, known.removed && !runs && !works);
        if !reclaimed {
            return;
        }
        let number = (0..self.vcpus.len() as u32).map(VcpuId);
        for vcpu in number.filter(|vcpu| self.vcpus[vcpu.index()].guest == guest) {
            assert_eq!(self.policy.view(vcpu), None);
        }
        for vcpu in self.vcpus.iter_mut().filter(|v| v.guest == guest) {
            vcpu.reclaimed = true;
        }
        self.guests[guest.index()] = KnownGuest::default();
        self.workers[guest.index()] = Worker::Idle;
        assert_eq!(self.policy.add_guest(), guest);
        assert_eq!(self.policy.add_worker(guest), WorkerId(guest.0));
    }

    pub fn pause(&mut self, guest: GuestId) {
        let known = &mut self.guests[guest.index()];
        let paused = self.policy.pause(guest, self.now);
        assert_eq!(paused, !known.paused && !known.removed);
        known.paused |= paused;
    }

    pub fn resume(&mut self, guest: GuestId) {
        let known = &mut self.guests[guest.index()];
        assert_eq!(self.policy.resume(guest, self.now), known.paused);
        known.paused = false;
    }

    /// Records what changes, if the policy admits it.
    pub fn set_reservation(&mut self, vcpu: VcpuId, reservation: Reservation) {
        let pending = self.view(vcpu).and_then(|view| view.next_reservation);
        let changed = self.policy.set_reservation(vcpu, reservation, self.now);
        if changed.is_ok() {
            let known = &mut self.vcpus[vcpu.index()];
            known.loses_reservation = false;
            // The reservation in force ends no later because what is to follow changes once more.
            if pending.is_none() {
                known.changed = self.now;
            }
        }
    }

    pub fn set_weight(&mut self, vcpu: VcpuId, weight: u32) {
        if Some(vcpu) == self.watched {
            return;
        }
        if self.policy.set_weight(vcpu, weight, self.now).is_ok() {
            self.vcpus[vcpu.index()].loses_reservation = true;
        }
    }

    pub fn set_allowed(&mut self, vcpu: VcpuId, pin: u32) {
        if Some(vcpu) == self.watched {
            return;
        }
        let allowed = self.pinning(pin);
        let _ = self.policy.set_allowed(vcpu, allowed, self.now);
    }

    /// Records which reservations have come into force.
    pub fn look_at_events(&mut self) {
        let mut changed = Vec::new();
        for &(at, event) in &self.policy.events[self.events_seen..] {
            let (vcpu, params) = match event {
                Event::ReservationChanged(vcpu, to) => (vcpu, SchedParams::Reserved(to)),
                Event::WeightChanged(vcpu, weight) => (vcpu, SchedParams::BestEffort { weight }),
                _ => continue,
            };
            let known = &mut self.vcpus[vcpu.index()];
            known.allowance.change(params, at);
            known.params = params;
            changed.push(vcpu);
        }
        self.events_seen = self.policy.events.len();
        for vcpu in changed {
            self.pay_debt_by_waiting(vcpu);
        }
    }

    /// A debt that `vcpu` had when its reservation was replaced is paid if the next one begins later for it.
    fn pay_debt_by_waiting(&mut self, vcpu: VcpuId) {
        let over = self.charged_beyond(vcpu);
        let Some((reservation, budget, deadline)) = self.view(vcpu).unwrap().reserved else {
            return;
        };
        let begins = deadline + reservation.period() - reservation.deadline();
        if budget <= 0 && begins > self.now {
            self.vcpus[vcpu.index()].overrun += over;
        }
    }

    /// A paused guest has no CPU that will not stop, and waits for nothing.
    pub fn check_paused(&self) {
        for cpu in &self.cpus {
            if let Some((donor, curr)) = cpu.running {
                let guests = [donor, curr].map(|v| self.vcpus[v.index()].guest);
                let paused = guests.iter().any(|g| self.guests[g.index()].paused);
                assert!(!paused || cpu.kicked || cpu.deferred, "it stops");
            }
        }
        for vcpu in self.all() {
            let paused = self.guests[self.vcpus[vcpu.index()].guest.index()].paused;
            let view = self.view(vcpu).unwrap();
            assert!(
                !paused || view.waits_for.is_none(),
                "{vcpu} waits for nothing"
            );
        }
    }
}
