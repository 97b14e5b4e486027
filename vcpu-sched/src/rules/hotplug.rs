//! CPUs that leave the pool and come back: taken offline, taken out of a cpuset, or needed for something
//! else. The owner of the host CPUs reports it, and these rules follow:
//!
//! 1. What runs on a CPU that leaves is stopped, and goes on elsewhere. A CPU that is away is picked for
//!    nothing.
//! 2. The last CPU does not leave: guests have to run somewhere, though not as promised.
//! 3. A vCPU that is pinned to CPUs of which none is left runs on those that are, until one of its own
//!    comes back, as the host's kernel does with a thread. A guest with a vCPU that never runs would hang.
//! 4. The admission test is made again for the CPUs that are left, guest by guest in the order in which
//!    they were added. A guest keeps its reservations if all of them fit beside those that were kept
//!    before it. The reservations of the others are *reduced*: they share what is left of 99 % of the
//!    CPUs, each in proportion to what it was promised, and get the same part of it, unless pinning gives
//!    some of them other CPUs. Best effort gives way first: to it remains 1 %, beside what reservations
//!    do not use.
//! 5. When a CPU comes back, or a guest ends, the test is made again, so that with all CPUs present all
//!    reservations are kept.
//!
//! A reduced reservation is one like any other, only smaller: EDF keeps it, and an upper bound stays one.
//!
//! These calls allocate memory, as no others do once the vCPUs are added; they are rare.

use std::cmp::Reverse;

use crate::classes::admission::{Admission, AdmissionError};
use crate::classes::reservation::Reservation;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, SchedClass};
use crate::state::timer_queue::sc_timer;
use crate::state::worker_table::WorkerOrder;

impl<E: Events> Scheduler<E> {
    /// The CPUs of the pool that are there.
    #[must_use]
    pub const fn present(&self) -> CpuSet {
        self.present
    }

    /// `cpu` is away from now on: it is kicked, and finds nothing when it picks. False, and nothing
    /// changes, if it is away already, is none of the pool's, or is the last one.
    pub fn cpu_offline(&mut self, cpu: CpuId, now: Ns) -> bool {
        if !self.present.contains(cpu) || self.present.len() == 1 {
            return false;
        }
        self.present.remove(cpu);
        self.emit(now, Event::CpuOffline(cpu));
        self.idle.remove(cpu);
        if let Some((worker, _)) = self.cpus[cpu.index()].worker.take() {
            self.workers.orders().push(WorkerOrder::Stop(worker));
        }
        // It stops what it runs, if it runs something, and is done with a sleep that it shares.
        self.kick(cpu, now);
        self.cpus_changed(now);
        if let Some(first) = self.next_timer() {
            // It may have been the one that wakes up in time.
            self.idle_keeps_timer(first, now);
        }
        self.check();
        true
    }

    /// `cpu` is there again: it is kicked, to pick. False, and nothing changes, if it was not away.
    pub fn cpu_online(&mut self, cpu: CpuId, now: Ns) -> bool {
        if self.present.contains(cpu) || !self.all.contains(cpu) {
            return false;
        }
        self.present.insert(cpu);
        self.emit(now, Event::CpuOnline(cpu));
        if self.cpus[cpu.index()].running.is_none() {
            self.idle.insert(cpu);
        }
        self.kick(cpu, now);
        self.cpus_changed(now);
        self.check();
        true
    }

    /// Where claims with the pinning `own` are served now: rule 3.
    pub(crate) fn served_by(&self, own: CpuSet) -> CpuSet {
        let left = own.and(self.present);
        if left.is_empty() { self.present } else { left }
    }

    /// Whether the execution of `vcpu` may be on `cpu` now.
    pub(crate) fn may_run_on(&self, vcpu: VcpuId, cpu: CpuId) -> bool {
        let domain = self.vcpus[vcpu.index()].ec.domain;
        self.domains[domain].cpus.contains(cpu)
    }

    /// The pool has other CPUs than before.
    fn cpus_changed(&mut self, now: Ns) {
        for domain in 0..self.domains.len() {
            self.domains[domain].cpus = self.served_by(self.domains[domain].own);
        }
        for cpu in self.present.iter() {
            self.meet_on(cpu);
        }
        // A vCPU that runs elsewhere because none of its own CPUs was left goes back to them.
        for cpu in self.present.iter() {
            if let Some((_, curr)) = self.running(cpu)
                && !self.may_run_on(curr, cpu)
            {
                self.kick(cpu, now);
            }
        }
        self.admit_again(now);
        self.offer_all(now);
    }

    /// Brings the virtual times of all queues that `cpu` serves to the same point: queues that met on no
    /// CPU for a while have gone on at their own pace, and a claim that is behind would keep the CPU until it
    /// has caught up. The claims of a queue move with it, so that none loses its place in its own.
    fn meet_on(&mut self, cpu: CpuId) {
        let here = |domain: &&crate::state::domain::Domain| domain.cpus.contains(cpu);
        let times = self.domains.iter().filter(here).map(|d| d.virtual_time);
        let Some(latest) = times.max() else {
            return;
        };
        for domain in 0..self.domains.len() {
            let behind = latest.saturating_sub(self.domains[domain].virtual_time);
            if behind == 0 || !self.domains[domain].cpus.contains(cpu) {
                continue;
            }
            self.domains[domain].virtual_time = latest;
            for vcpu in (0..self.vcpus.len() as u32).map(VcpuId) {
                let v = &mut self.vcpus[vcpu.index()];
                let SchedClass::Fair(fair) = &mut v.sc.class else {
                    continue;
                };
                if v.ec.domain != domain {
                    continue;
                }
                fair.shift(behind);
                let rank = v.sc.rank();
                match v.sc.state {
                    ScState::Queued(queue) => self.domains[queue].queue.set(vcpu.0, rank),
                    ScState::OnCpu(cpu) if self.busy.contains(cpu.0) => {
                        self.busy.set(cpu.0, Reverse(rank));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The first claim of each queue may deserve another CPU; that one offers the next.
    fn offer_all(&mut self, now: Ns) {
        for domain in 0..self.domains.len() {
            if let Some((_, first)) = self.domains[domain].queue.first() {
                self.preempt_for(VcpuId(first), now);
            }
        }
    }

    /// A CPU that is away picks: nothing. Others look after what it left.
    pub(crate) fn pick_nothing(&mut self, cpu: CpuId, now: Ns) {
        let c = &mut self.cpus[cpu.index()];
        (c.choosing, c.kicked, c.sleeps_until) = (false, false, None);
        let stopped = c.stopped.take();
        if let Some((left, Some(held))) = c.left.take() {
            // As when another one takes the CPU.
            let left = &mut self.vcpus[left.index()].counters;
            left.preemptions += 1;
            left.holder_preemptions += u64::from(held);
        }
        self.looking.remove(cpu);
        self.idle.remove(cpu);
        self.kicks.remove(cpu);
        self.emit(now, Event::Idle { cpu });
        self.fire_timers(now);
        if let Some(stopped) = stopped {
            self.unpark_waiters(stopped, now);
        }
        self.offer_all(now);
        self.keep_all_timers(now);
        self.check();
    }

    /// The reserved vCPUs of `guest`, what they were promised, and where they are served now.
    fn promises(&self, guest: usize) -> Vec<(VcpuId, Reservation, CpuSet)> {
        let promise = |&vcpu: &VcpuId| {
            let v = &self.vcpus[vcpu.index()];
            let SchedClass::Deadline(server) = &v.sc.class else {
                return None;
            };
            let alive = v.ec.state != ExecState::Gone;
            alive.then(|| (vcpu, *server.promised(), self.domains[v.ec.domain].cpus))
        };
        self.guests[guest]
            .vcpus
            .iter()
            .filter_map(promise)
            .collect()
    }

    /// Rule 4.
    pub(crate) fn admit_again(&mut self, now: Ns) {
        let mut kept = self.admission.emptied();
        let mut reduced = self.admission.emptied();
        let mut in_force: Vec<(VcpuId, Reservation, Option<CpuSet>)> = Vec::new();
        for guest in 0..self.guests.len() {
            let promises = self.promises(guest);
            let mut beside = kept.clone();
            let mut fits = promises.iter();
            if fits.all(|(_, r, cpus)| beside.take(r, *cpus, self.present).is_ok()) {
                kept = beside;
                in_force.extend(promises.into_iter().map(|(v, r, _)| (v, r, None)));
            } else {
                promises
                    .iter()
                    .for_each(|(_, r, cpus)| reduced.add(r, *cpus));
                in_force.extend(promises.into_iter().map(|(v, r, cpus)| (v, r, Some(cpus))));
            }
        }
        for (vcpu, promised, cpus) in in_force {
            let reservation = cpus.map_or(promised, |cpus| {
                promised.scaled(kept.part_of_rest(&reduced, cpus, self.present))
            });
            self.put_in_force(vcpu, reservation, now);
        }
    }

    fn put_in_force(&mut self, vcpu: VcpuId, reservation: Reservation, now: Ns) {
        let v = &mut self.vcpus[vcpu.index()];
        let running = match v.sc.state {
            ScState::OnCpu(cpu) => self.cpus[cpu.index()].running,
            _ => None,
        };
        let uncharged = running.map_or(0, |running| now.saturating_sub(running.since));
        let SchedClass::Deadline(server) = &mut v.sc.class else {
            return;
        };
        if *server.reservation() == reservation {
            return;
        }
        server.put_in_force(reservation, uncharged);
        let is_whole = reservation == *server.promised();
        let again = server.replenished_at();
        match (is_whole, v.sc.reduced_since) {
            (true, Some(since)) => {
                v.counters.reduced_ns += now.saturating_sub(since);
                v.sc.reduced_since = None;
            }
            (false, None) => v.sc.reduced_since = Some(now),
            _ => {}
        }
        let state = v.sc.state;
        self.emit(now, Event::InForce(vcpu, reservation));
        match state {
            // Its debt is paid off sooner or later than it was before.
            ScState::Throttled => self.set_timer(sc_timer(vcpu), again, now),
            // Its decision ends by the budget that it had.
            ScState::OnCpu(cpu) => self.kick(cpu, now),
            _ => {}
        }
    }

    /// Whether `reservation` fits beside all that was promised, on the CPUs that are left.
    pub(crate) fn fits_on_present(
        &self,
        reservation: &Reservation,
        own: CpuSet,
    ) -> Result<(), AdmissionError> {
        if self.present == self.all {
            return Ok(());
        }
        let mut others: Admission = self.admission.emptied();
        for guest in 0..self.guests.len() {
            let promises = self.promises(guest);
            promises
                .iter()
                .for_each(|(_, r, cpus)| others.add(r, *cpus));
        }
        others.take(reservation, self.served_by(own), self.present)
    }
}
