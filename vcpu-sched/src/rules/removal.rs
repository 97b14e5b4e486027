//! The end of a vCPU, and of a guest.
//!
//! A guest is removed in two steps, so that no name of it can come to name something else while anybody uses
//! it:
//!
//! 1. [`Scheduler::remove_guest`]: its vCPUs leave the queues, and the CPUs and workers that run for it are
//!    stopped. Its names still exist; the calls that take them do nothing, or return its last counters.
//! 2. [`Scheduler::reclaim_guest`], once the owner uses the names no longer: everything that is known of the
//!    guest goes, and the names are free. The policy refuses that while a CPU or a worker runs for the guest.
//!
//! So the tables have as many rows as the largest number of guests and vCPUs that there were at one time.

use crate::classes::admission::{Held, density};
use crate::events::{Event, Events};
use crate::ids::{GuestId, Ns, VcpuId, WorkerId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;
use crate::state::worker_table::WorkerState;

impl<E: Events> Scheduler<E> {
    /// Removes a vCPU for good; its reservation is free again at its 0-lag time. If it runs, its CPU is kicked,
    /// and it is gone when it stops.
    pub fn remove(&mut self, vcpu: VcpuId, now: Ns) {
        let Some(v) = self.vcpus.get_mut(vcpu) else {
            return;
        };
        match v.ec.state {
            ExecState::Gone => {}
            ExecState::Running(cpu) => {
                v.ec.ending = true;
                self.kick(cpu, now);
            }
            ExecState::Halted | ExecState::Runnable { .. } | ExecState::Paused => {
                self.finish(vcpu, now);
                if let ScState::OnCpu(cpu) = self.vcpus[vcpu].sc.state {
                    self.kick(cpu, now);
                }
            }
        }
    }

    /// Removes a guest for good, with its vCPUs and workers. CPUs that run its vCPUs are kicked, and workers that
    /// work are ordered to stop. False, and nothing changes, if there is no such guest, or it is being removed
    /// already.
    pub fn remove_guest(&mut self, guest: GuestId, now: Ns) -> bool {
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
        self.check();
        true
    }

    /// Forgets a guest that has been removed. Its name and those of its vCPUs and workers are free, and will
    /// name others. Call this once nobody uses them any longer. False, and nothing changes, if the guest has not
    /// been removed, a CPU has yet to stop one of its vCPUs, or a worker has yet to report that it stopped.
    pub fn reclaim_guest(&mut self, guest: GuestId, now: Ns) -> bool {
        let Some(row) = self.guests.get(guest).filter(|row| row.ending) else {
            return false;
        };
        let rests = |&vcpu: &VcpuId| {
            let v = &self.vcpus[vcpu];
            v.ec.state == ExecState::Gone && !matches!(v.sc.state, ScState::OnCpu(_))
        };
        let workers: Vec<WorkerId> = self.workers.of(guest).collect();
        let works = |&worker: &WorkerId| {
            matches!(self.workers.rows[worker].state, WorkerState::Working { .. })
        };
        if !row.vcpus.iter().all(rests) || workers.iter().any(works) {
            return false;
        }
        let vcpus = row.vcpus.clone();
        for &vcpu in &vcpus {
            self.drop_edge(vcpu, now);
            self.dequeue(vcpu);
        }
        for vcpu in vcpus {
            self.forget(vcpu, now);
        }
        for worker in workers {
            self.workers.remove(worker);
        }
        self.guests.remove(guest);
        self.emit(now, Event::GuestReclaimed(guest));
        self.check();
        true
    }

    /// Takes a vCPU that is gone out of the tables.
    fn forget(&mut self, vcpu: VcpuId, now: Ns) {
        for cpu in self.cpus.ids() {
            let row = self.cpus.row_mut(cpu);
            row.just_stopped = row.just_stopped.filter(|&stopped| stopped != vcpu);
        }
        self.admission.forget(vcpu);
        let domain = self.vcpus[vcpu].ec.domain;
        self.vcpus.remove(vcpu);
        self.counting.remove_vcpu(vcpu);
        self.leave_domain(domain, now);
    }

    /// The execution context is gone, and with it its scheduling context, unless that is the donor on a CPU
    /// just now: then `stop.rs` ends it.
    pub(crate) fn finish(&mut self, vcpu: VcpuId, now: Ns) {
        if !matches!(self.vcpus[vcpu].ec.state, ExecState::Halted) {
            self.count_runnable(vcpu, -1);
        }
        self.drop_edge(vcpu, now);
        self.clear_timer(TimerId::Wake(vcpu));
        self.vcpus[vcpu].ec.wake_at = None;
        self.end_wait(vcpu, now);
        if self.vcpus[vcpu].sc.state == ScState::Throttled {
            self.end_throttling(vcpu, now);
            self.settle_late_budget(vcpu, now);
        }
        if !matches!(self.vcpus[vcpu].sc.state, ScState::OnCpu(_)) {
            self.end_promise(vcpu, now);
        }
        self.vcpus[vcpu].ec.state = ExecState::Gone;
        self.give_back_reservation(vcpu, now);
        if !matches!(self.vcpus[vcpu].sc.state, ScState::OnCpu(_)) {
            self.dequeue(vcpu);
        }
        self.unpark_waiters(vcpu, now);
        self.end_visits_for_stopped(vcpu, now);
    }

    fn give_back_reservation(&mut self, vcpu: VcpuId, now: Ns) {
        let (promised, allowed) = (self.promised(vcpu), self.promised_cpus(vcpu));
        self.drop_pending_changes(vcpu, now);
        self.admission.free_held(now);
        if let Some(reservation) = &promised {
            self.admission.give_back(reservation, allowed);
        }
        let sc = &mut self.vcpus[vcpu].sc;
        let Some(server) = sc.class.server() else {
            return;
        };
        let held = self.admission.free_held_of(vcpu, allowed, u64::MAX);
        let has = promised.as_ref().map_or(0, density) + held;
        let held = Held {
            vcpu: Some(vcpu),
            allowed,
            density: density(server.admitted()).min(has),
            moved_to: None,
            until: server.zero_lag(now),
        };
        self.admission.hold(held, now);
        if let Some(since) = sc.reduced_since.take() {
            self.counting.counters_mut(vcpu).reduced_ns += now.saturating_sub(since);
        }
        if self.cpus.online() != self.cpus.all() {
            self.admit_again(now);
        }
    }
}
