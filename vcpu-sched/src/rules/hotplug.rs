//! CPU hot-plug: CPUs of the pool that go offline and online again. Offline here means that the pool cannot
//! use a CPU, because it is offline in the host, taken out of the cpuset, or needed for something else. The
//! owner of the host CPUs reports it, and these rules follow:
//!
//! 1. What runs on a CPU that goes offline is stopped, and goes on elsewhere. A CPU that is offline picks
//!    nothing.
//! 2. The last CPU does not go offline: guests have to run somewhere, though not as promised.
//! 3. A vCPU whose pinned CPUs are all offline runs on those that are online, until one of its own is
//!    online again, as the host's kernel does with a thread. A guest with a vCPU that never runs would hang.
//! 4. The admission test is repeated for the CPUs that are online, guest by guest in the order in which
//!    they were added. A guest keeps its reservations if all of them fit beside those that were kept before
//!    it. The reservations of the others are *reduced*: they share what is left of 99 % of the CPUs, each in
//!    proportion to what was admitted, and get the same part of it, unless pinning gives some of them other
//!    CPUs. Best effort gives way first: to it remains 1 %, beside what reservations do not use.
//! 5. When a CPU goes online, or a guest ends, the test is repeated, so that with all CPUs online all
//!    reservations are kept.
//!
//! A reduced reservation is one like any other, only smaller: EDF keeps it, and an upper bound stays one.
//!
//! These calls allocate memory, as no others do once the vCPUs are added; they are rare.

use crate::classes::admission::{Admission, AdmissionError, Held, density};
use crate::classes::reservation::Reservation;
use crate::classes::sched_class::Activity;
use crate::classes::virtual_time::VirtualSpan;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, DomainId, GuestId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;
use crate::state::worker_table::WorkerOrder;

/// A reservation as it was admitted, and the CPUs that serve it now.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    vcpu: VcpuId,
    reservation: Reservation,
    /// What was admitted from the next budget on.
    promised: Reservation,
    cpus: CpuSet,
}

impl<E: Events> Scheduler<E> {
    /// The CPUs of the pool that are online.
    #[must_use]
    pub const fn online_cpus(&self) -> CpuSet {
        self.cpus.online()
    }

    /// `cpu` goes offline: it is kicked, and picks nothing from now on. False, and nothing changes, if it is
    /// offline already, is not of the pool, or is the last one online.
    pub fn cpu_offline(&mut self, cpu: CpuId, now: Ns) -> bool {
        let online = self.cpus.online();
        if !online.contains(cpu) || online.len() == 1 {
            return false;
        }
        self.cpus.set_offline(cpu);
        self.leave_cpu(cpu, now);
        self.check();
        true
    }

    /// `cpu` is online again: it is kicked, to pick. False, and nothing changes, if it was not offline.
    pub fn cpu_online(&mut self, cpu: CpuId, now: Ns) -> bool {
        if self.cpus.online().contains(cpu) || !self.cpus.all().contains(cpu) {
            return false;
        }
        self.cpus.set_online(cpu);
        self.use_cpu(cpu, now);
        self.check();
        true
    }

    /// The CPUs that serve the queue of this pinning now: rule 3.
    pub(crate) fn served_by(&self, pinning: CpuSet) -> CpuSet {
        let left = pinning.and(self.cpus.online());
        if left.is_empty() {
            self.cpus.online()
        } else {
            left
        }
    }

    /// Whether the execution context of `vcpu` may be on `cpu` now.
    pub(crate) fn may_run_on(&self, vcpu: VcpuId, cpu: CpuId) -> bool {
        let domain = self.vcpus[vcpu].ec.domain;
        self.domains[domain].cpus.contains(cpu)
    }

    /// `cpu` is not online any more: it is kicked, and picks nothing from now on.
    pub(crate) fn leave_cpu(&mut self, cpu: CpuId, now: Ns) {
        self.emit(now, Event::CpuOffline(cpu));
        if let Some(grant) = self.cpus.row_mut(cpu).grant.take() {
            self.workers.orders.push(WorkerOrder::Stop(grant.worker));
        }
        // It stops what it runs, if anything, and ends a sleep that it shares with a vCPU.
        self.kick(cpu, now);
        self.cpus_changed(now);
        if let Some(first) = self.next_timer() {
            // It may have been the timekeeper.
            self.idle_cpu_keeps(first, now);
        }
    }

    /// `cpu` is online from now on: it is kicked, to pick.
    pub(crate) fn use_cpu(&mut self, cpu: CpuId, now: Ns) {
        self.emit(now, Event::CpuOnline(cpu));
        self.kick(cpu, now);
        self.cpus_changed(now);
    }

    /// The pool has other CPUs than before.
    pub(crate) fn cpus_changed(&mut self, now: Ns) {
        for domain in self.domains.place_ids() {
            if let Some(pinning) = self.domains.get(domain).map(|domain| domain.pinning) {
                self.domains[domain].cpus = self.served_by(pinning);
            }
        }
        for cpu in self.cpus.online().iter() {
            self.align_virtual_times(cpu);
        }
        // A vCPU that runs elsewhere because its own CPUs were all offline goes back to them.
        for cpu in self.cpus.online().iter() {
            if let Some((_, curr)) = self.running(cpu)
                && !self.may_run_on(curr, cpu)
            {
                self.kick(cpu, now);
            }
        }
        self.admit_again(now);
        self.kick_for_all_queues(now);
    }

    /// Brings the virtual times of all queues that `cpu` serves to the same point. Queues that have shared
    /// no CPU for a while have gone on at their own pace, and what is behind would keep the CPU until it had
    /// caught up. The scheduling contexts of a queue move with it, so that none loses its place.
    fn align_virtual_times(&mut self, cpu: CpuId) {
        let here = self.domains.iter().filter(|d| d.cpus.contains(cpu));
        let Some(latest) = here.map(|d| d.virtual_time).max() else {
            return;
        };
        for domain in self.domains.place_ids() {
            let Some(row) = self.domains.get_mut(domain) else {
                continue;
            };
            let behind = latest.since(row.virtual_time);
            if behind == VirtualSpan::default() || !row.cpus.contains(cpu) {
                continue;
            }
            row.virtual_time = latest;
            self.shift_tags(domain, behind);
        }
    }

    fn shift_tags(&mut self, domain: DomainId, by: VirtualSpan) {
        for vcpu in self.vcpus.place_ids() {
            let Some(v) = self.vcpus.get_mut(vcpu) else {
                continue;
            };
            if v.ec.domain != domain || !v.sc.class.shift(by) {
                continue;
            }
            let rank = v.sc.rank();
            match v.sc.state {
                ScState::Queued(queue) => self.domains[queue].queue.set(vcpu, rank),
                ScState::OnCpu(cpu) => {
                    self.cpus.set_rank(cpu, rank);
                }
                _ => {}
            }
        }
    }

    /// `cpu`, which is offline, picks nothing. The other CPUs see to what it left.
    pub(crate) fn pick_nothing(&mut self, cpu: CpuId, now: Ns) {
        self.cpus.deactivate(cpu);
        let stopped = self.cpus.row_mut(cpu).just_stopped.take();
        self.emit(now, Event::Idle { cpu });
        self.fire_timers(now);
        if let Some(stopped) = stopped {
            self.unpark_waiters(stopped, now);
        }
        self.kick_for_all_queues(now);
        self.find_timekeepers(now);
        self.check();
    }

    /// The reservations of the vCPUs of `guest`.
    fn admitted(&self, guest: GuestId) -> Vec<Admitted> {
        let admitted = |&vcpu: &VcpuId| {
            let v = &self.vcpus[vcpu];
            let server = v.sc.class.server()?;
            (v.ec.state != ExecState::Gone).then(|| Admitted {
                vcpu,
                reservation: *server.admitted(),
                promised: *server.promised(),
                cpus: self.domains[v.ec.domain].cpus,
            })
        };
        let vcpus = self.guests[guest].vcpus.iter();
        vcpus.filter_map(admitted).collect()
    }

    /// Rules 4 and 5.
    pub(crate) fn admit_again(&mut self, now: Ns) {
        self.settle_idle_changes(now);
        let online = self.cpus.online();
        let (mut kept, mut reduced) = (self.admission.emptied(), self.admission.emptied());
        let mut in_force = Vec::new();
        let mut in_order: Vec<_> = self.guests.ids().collect();
        in_order.sort_by_key(|&guest| self.guests[guest].added_seq);
        for guest in in_order {
            let admitted = self.admitted(guest);
            let mut beside = kept.clone();
            let mut takes = |a: &Admitted| beside.take(&a.reservation, a.cpus, online).is_ok();
            // With all CPUs online, all that was admitted fits. The test could fail: the bandwidth of a reservation
            // that is to become smaller may have been given to others before the vCPU has its next budget.
            let fits = online == self.cpus.all() || admitted.iter().all(&mut takes);
            if fits {
                kept = beside;
            } else {
                for a in &admitted {
                    reduced.add(&a.reservation, a.cpus);
                }
            }
            in_force.extend(admitted.into_iter().map(|a| (a, fits)));
        }
        for (a, is_whole) in in_force {
            let reservation = if is_whole {
                a.reservation
            } else {
                let part = kept.part_of_rest(&reduced, a.cpus, online);
                a.reservation.scaled(part)
            };
            self.put_in_force(a.vcpu, reservation, now);
        }
    }

    fn put_in_force(&mut self, vcpu: VcpuId, reservation: Reservation, now: Ns) {
        let uncharged = match self.activity(vcpu, now) {
            Activity::Donating { uncharged } => uncharged.0,
            _ => 0,
        };
        let sc = &mut self.vcpus[vcpu].sc;
        let Some(server) = sc.class.server_mut() else {
            return;
        };
        let is_whole = reservation == *server.admitted();
        if *server.reservation() == reservation && sc.reduced_since.is_none() == is_whole {
            return;
        }
        if sc.state == ScState::Throttled {
            // The periods that have passed count by the reservation that was in force.
            server.pay_off(now);
        }
        server.put_in_force(reservation, uncharged);
        let replenished_at = server.replenished_at();
        self.follow_budget(vcpu);
        let sc = &mut self.vcpus[vcpu].sc;
        if !is_whole {
            sc.reduced_since = sc.reduced_since.or(Some(now));
        } else if let Some(since) = sc.reduced_since.take() {
            self.counting.counters_mut(vcpu).reduced_ns += now.saturating_sub(since);
        }
        self.emit(now, Event::InForce(vcpu, reservation));
        match self.vcpus[vcpu].sc.state {
            // Its debt is paid off sooner or later than it was before.
            ScState::Throttled => self.set_timer(TimerId::Sc(vcpu), replenished_at, now),
            // The decision under way ends by the budget that it had.
            ScState::OnCpu(cpu) => self.kick(cpu, now),
            // Where the budget is too short to be reduced, the deadline has moved.
            _ => self.deadline_changed(vcpu, now),
        }
    }

    /// Checks that `reservation` fits on the CPUs that are online, beside all that was admitted for others than
    /// `vcpu` and all that is held.
    pub(crate) fn fits_on_online(
        &self,
        vcpu: Option<VcpuId>,
        reservation: &Reservation,
        pinning: CpuSet,
    ) -> Result<(), AdmissionError> {
        if self.cpus.online() == self.cpus.all() {
            return Ok(());
        }
        let mut others: Admission = self.admission.emptied();
        for guest in self.guests.ids() {
            for a in self.admitted(guest) {
                if Some(a.vcpu) != vcpu {
                    let larger = [a.reservation, a.promised];
                    let larger = larger.into_iter().max_by_key(density);
                    others.add(&larger.unwrap_or(a.promised), a.cpus);
                }
            }
        }
        for &held in self.admission.held() {
            let allowed = self.served_by(held.allowed);
            let moved_to = held.moved_to.map(|to| self.served_by(to));
            let held = Held {
                allowed,
                moved_to,
                ..held
            };
            others.hold(held, 0);
        }
        others.take(reservation, self.served_by(pinning), self.cpus.online())
    }
}
