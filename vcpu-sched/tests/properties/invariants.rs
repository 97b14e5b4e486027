//! What must hold after each call, and at the end.

use vcpu_sched::sim::audit;
use vcpu_sched::{
    CpuId, Doing, Exhaustion, GuestId, Hints, Ns, Reservation, StopReason, VcpuId, VcpuView,
};

use crate::US;
use crate::machine::{Machine, Worker};
use crate::ops::GUESTS;

impl Machine {
    pub fn check(&mut self) {
        self.look_at_events();
        self.check_paused();
        audit(&self.policy).unwrap();
        for (index, cpu) in self.cpus.iter().enumerate() {
            assert_eq!(self.policy.running(CpuId(index as u32)), cpu.running);
            if let Some((donor, curr)) = cpu.running {
                let guest = |vcpu: VcpuId| self.vcpus[vcpu.index()].guest;
                assert_eq!(guest(donor), guest(curr), "a budget stays in its guest");
                let elsewhere = self.cpus[index + 1..].iter();
                for (other_donor, other_curr) in elsewhere.filter_map(|cpu| cpu.running) {
                    assert_ne!(curr, other_curr, "a vCPU runs once");
                    assert_ne!(donor, other_donor, "a vCPU is the donor once");
                }
            }
        }
        for guest in 0..GUESTS {
            let of = || {
                self.all()
                    .filter(|v| self.vcpus[v.index()].guest == GuestId(guest))
            };
            let counters = || of().map(|vcpu| self.policy.counters(vcpu));
            let charged: Ns = counters().map(|c| c.charged_ns).sum();
            let ran: Ns = counters().map(|c| c.runtime_ns).sum();
            let spent: Ns = counters().map(|c| c.elsewhere_ns).sum();
            assert_eq!(
                charged,
                ran + spent,
                "what is used is charged, within the guest"
            );
            let donated: Ns = counters().map(|c| c.donated_ns).sum();
            let received: Ns = counters().map(|c| c.received_ns).sum();
            assert_eq!(donated, received);
        }
        self.check_admission();
        for vcpu in self.all() {
            self.check_charges(vcpu);
            self.check_budget(vcpu);
            self.check_edge(vcpu);
        }
    }

    /// What is in force fits on the CPUs that are online. When all are online, it is all that was admitted.
    pub fn check_admission(&self) {
        let cpus = self.policy.online_cpus().len();
        let all = self.policy.pool_cpus().len();
        let all_online = cpus == all;
        let views = self.all().map(|vcpu| (vcpu, self.view(vcpu).unwrap()));
        let alive = |(_, v): &(VcpuId, VcpuView)| v.doing != Doing::Gone;
        let share = |r: &Reservation| r.budget() as f64 / r.deadline() as f64;
        let mut sum = 0.0;
        for (vcpu, view) in views.filter(alive) {
            let Some((admitted, _, deadline)) = view.reserved else {
                continue;
            };
            // Once its CPU has been stopped, it has none.
            if self.vcpus[vcpu.index()].loses_reservation {
                continue;
            }
            let mut in_force = view.reduced.map_or(admitted, |(reduced, _)| reduced);
            // The period at hand is over, and the next one begins with another reservation. (While CPUs are
            // offline, the test of which reservations are kept is repeated then.)
            let changed = self.vcpus[vcpu.index()].changed;
            let over = deadline.min(changed + admitted.period()) <= self.now;
            let next = view.next_reservation.filter(|_| over && all_online);
            in_force = next.unwrap_or(in_force);
            sum += share(&in_force);
            if let Some((reduced, _)) = view.reduced {
                assert!(share(&reduced) <= share(&admitted) + 1e-9);
            }
            assert!(view.reduced.is_none() || cpus < all);
        }
        let cap = if all_online { 0.95 } else { 1.0 };
        let most = cap * f64::from(cpus);
        assert!(sum <= most + 1e-5, "{sum} on {cpus} CPUs");
    }

    /// A vCPU is charged for what it donated and ran, and for no more or less.
    pub fn check_charges(&self, vcpu: VcpuId) {
        let known = &self.vcpus[vcpu.index()];
        let c = self.policy.counters(vcpu);
        let charged = known.donor_for + known.elsewhere;
        assert_eq!((c.runtime_ns, c.charged_ns), (known.ran, charged));
        assert_eq!(c.elsewhere_ns, known.elsewhere);
        let charged = c.charged_ns - c.donated_ns - c.elsewhere_ns;
        // One budget at hand is promised, and what becomes of it is not known.
        let lost = c.lost_to_host_ns + c.lost_to_overcommit_ns;
        let came_of_it = c.delivered_ns + lost + c.undemanded_ns;
        assert!(c.promised_ns >= came_of_it, "{vcpu}: {c:?}");
        assert!(c.delivered_ns <= c.charged_ns, "{vcpu}: {c:?}");
        let own = (c.runtime_ns - c.received_ns, charged);
        assert_eq!(own.0, own.1, "{vcpu} on its own budget");
    }

    /// No vCPU waits for itself, for a vCPU of another guest, or while it runs.
    pub fn check_edge(&self, vcpu: VcpuId) {
        let view = self.view(vcpu).unwrap();
        if let Some((holder, _)) = view.waits_for {
            assert_ne!(holder, vcpu);
            assert_eq!(
                self.guest(holder),
                self.guest(vcpu),
                "edges stay in a guest"
            );
            assert!(!matches!(
                view.doing,
                Doing::Running(_) | Doing::Paused | Doing::Gone
            ));
        }
    }

    /// A hard reservation is charged at most one budget for each period since it was added and one more, plus
    /// what ran beyond the ends of its decisions, and its present debt.
    pub fn check_budget(&self, vcpu: VcpuId) {
        let over = self.charged_beyond(vcpu);
        assert_eq!(over, 0, "{vcpu} was charged too much");
    }

    /// How much more it was charged than that, ns.
    pub fn charged_beyond(&self, vcpu: VcpuId) -> Ns {
        let known = &self.vcpus[vcpu.index()];
        let Some(allowed) = known.allowance.at(self.now).filter(|_| !known.removed) else {
            return 0;
        };
        let charged = self.policy.counters(vcpu).charged_ns;
        let (_, budget, _) = self.view(vcpu).unwrap().reserved.unwrap();
        let debt = budget.min(0).unsigned_abs();
        charged.saturating_sub(allowed + known.overrun + debt)
    }

    /// The carried vCPUs release the locks for which they are carried, and ring. One that is alone on its CPU
    /// would not be stopped otherwise.
    pub fn carried_release(&mut self) {
        let hints = Hints {
            releases: self.releases,
            ..Hints::default()
        };
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu]
                .running
                .is_some_and(|(donor, curr)| donor != curr)
            {
                self.policy.release(CpuId(cpu as u32), None, self.now);
                self.stop(cpu, StopReason::Rang, hints);
                self.pick(cpu);
            }
        }
    }

    /// The workers that have a grant use some of it and stop.
    pub fn workers_work(&mut self) {
        for guest in 0..GUESTS {
            if let Worker::Works(donor) = self.workers[guest as usize] {
                self.finish(guest, donor, 10 * US);
            }
        }
    }

    /// Whether a worker waits though its guest has a vCPU that can be the donor.
    pub fn worker_waits(&self, alive: &[VcpuId]) -> bool {
        let waits = |guest: GuestId| self.workers[guest.index()] == Worker::Waits;
        alive.iter().any(|&v| waits(self.vcpus[v.index()].guest))
    }

    /// Of the reservation that a vCPU has or gets; soft, if one of the two is.
    fn exhaustion(&self, vcpu: VcpuId) -> Option<Exhaustion> {
        let view = self.view(vcpu)?;
        let present = view.reserved.map(|(present, ..)| present.exhaustion());
        let next = view.next_reservation.map(|next| next.exhaustion());
        let soft = Some(Exhaustion::Soft);
        match [present, next].contains(&soft) {
            true => soft,
            false => present.or(next),
        }
    }

    /// Wakes all vCPUs and lets them run: each gets a CPU sooner or later. Holders release their locks whenever
    /// they have run. Otherwise their waiters would rightly never run.
    pub fn no_vcpu_is_lost(mut self) {
        for guest in (0..GUESTS).map(GuestId) {
            self.resume(guest);
        }
        self.take_worker_orders();
        self.take_kicks();
        // Changes that are pending come into force when the CPUs have stopped.
        self.pass(self.now + 1_000 * US);
        self.check();
        let all = self.all();
        let mut alive: Vec<_> = all.filter(|v| !self.vcpus[v.index()].removed).collect();
        for &vcpu in &alive {
            self.policy.wake(vcpu, self.now);
        }
        // A soft reservation that never sleeps leaves nothing to best effort. If it ran ahead of its budgets
        // before, it leaves nothing to itself for as long.
        if alive
            .iter()
            .any(|&v| self.exhaustion(v) == Some(Exhaustion::Soft))
        {
            alive.retain(|&v| self.exhaustion(v) == Some(Exhaustion::Hard));
        }
        let before = |&vcpu: &VcpuId| (vcpu, self.policy.counters(vcpu).runtime_ns);
        let mut waiting: Vec<_> = alive.iter().map(before).collect();
        self.take_kicks();
        self.releases = 7;
        // A small weight beside large ones and reservations has a turn once in several seconds.
        for _ in 0..400 {
            self.pass(self.now + 50_000 * US);
            self.carried_release();
            self.workers_work();
            let runs = |vcpu| {
                self.cpus
                    .iter()
                    .any(|c| c.running.is_some_and(|r| r.1 == vcpu))
            };
            waiting.retain(|&(vcpu, before)| {
                self.policy.counters(vcpu).runtime_ns == before && !runs(vcpu)
            });
            if waiting.is_empty() && !self.worker_waits(&alive) {
                return;
            }
        }
        let workers = self.workers;
        panic!("{waiting:?} were woken and never ran, or workers wait: {workers:?}");
    }
}
