//! Pausing: a paused guest gets no CPU time, and lends none, until it is resumed.
//!
//! 1. Its vCPUs that run are stopped, and so is what runs on a scheduling context of it. The others leave
//!    the queues at once, and its edges are dropped: whoever waits in the guest is paused as well, and publishes
//!    anew what it waits for when it runs.
//! 2. Wake-ups and wake-up timers are recorded, and delivered when the guest is resumed. The timers interrupt no
//!    CPU meanwhile.
//! 3. Reservations stay admitted. Budgets do not accumulate: a guest that is resumed is treated like one whose
//!    vCPUs wake up then (`Server::wake`). So a vCPU keeps its deadline and what is left of its budget if that
//!    does not exceed its bandwidth, and has a fresh period otherwise. A vCPU that has used up its budget stays
//!    throttled until its replenishment, as if it had not been paused.
//! 4. What other threads use for the guest meanwhile is charged, as for one whose vCPUs sleep. Its workers get no
//!    grants.

use crate::events::{Event, Events};
use crate::ids::{GuestId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Pauses a guest: CPUs that run its vCPUs, or run something on its budgets, are kicked, and workers that
    /// work for it are ordered to stop. False, and nothing changes, if there is no such guest, or if it is paused
    /// or being removed.
    pub fn pause(&mut self, guest: GuestId, now: Ns) -> bool {
        let row = self.guests.get_mut(guest);
        let Some(row) = row.filter(|row| !row.paused && !row.ending) else {
            return false;
        };
        row.paused = true;
        self.emit(now, Event::Paused(guest));
        for place in 0..self.guests[guest].vcpus.len() {
            let vcpu = self.guests[guest].vcpus[place];
            self.pause_execution(vcpu, now);
            self.drop_edge(vcpu, now);
            self.pause_scheduling_context(vcpu, now);
        }
        self.stop_workers(guest);
        self.check();
        true
    }

    fn pause_execution(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus[vcpu].ec.state {
            ExecState::Gone | ExecState::Paused => {}
            ExecState::Running(cpu) => self.kick(cpu, now),
            ExecState::Runnable { .. } => {
                self.end_wait(vcpu, now);
                self.vcpus[vcpu].ec.state = ExecState::Paused;
            }
            ExecState::Halted => {
                self.vcpus[vcpu].ec.wake_at = self.take_timer(TimerId::Wake(vcpu));
            }
        }
    }

    fn pause_scheduling_context(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus[vcpu].sc.state {
            ScState::OnCpu(cpu) => self.kick(cpu, now),
            ScState::Queued(_) | ScState::Parked(_) => {
                self.settle_deadlines(vcpu, now);
                self.dequeue(vcpu);
                let sharers = self.sharers(vcpu);
                self.vcpus[vcpu].sc.class.halt(sharers);
            }
            // Its timer brings its budget back, as that of a vCPU that sleeps.
            ScState::Throttled => {}
            ScState::Off | ScState::Proxied => {}
        }
    }

    /// Resumes a guest that is paused. False, and nothing changes, for any other.
    pub fn resume(&mut self, guest: GuestId, now: Ns) -> bool {
        let Some(row) = self.guests.get_mut(guest).filter(|row| row.paused) else {
            return false;
        };
        row.paused = false;
        self.emit(now, Event::Resumed(guest));
        let vcpus = self.guests[guest].vcpus.clone();
        for &vcpu in &vcpus {
            self.resume_execution(vcpu, now);
        }
        for vcpu in vcpus {
            self.deliver_wake_up(vcpu, now);
        }
        self.resume_workers(guest, now);
        self.check();
        true
    }

    fn resume_execution(&mut self, vcpu: VcpuId, now: Ns) {
        let ec = &mut self.vcpus[vcpu].ec;
        if ec.state != ExecState::Paused {
            return;
        }
        ec.state = ExecState::Runnable { since: now };
        if self.vcpus[vcpu].sc.state == ScState::Off {
            self.activate(vcpu, now, now);
        } else {
            self.kick_for(vcpu, now);
        }
        self.kick_for_woken(vcpu, now);
    }

    /// The wake-up timer of a halted vCPU is set again, or was due while its guest was paused.
    fn deliver_wake_up(&mut self, vcpu: VcpuId, now: Ns) {
        match self.vcpus[vcpu].ec.wake_at.take() {
            Some(at) if at <= now => self.wake(vcpu, now),
            Some(at) => self.set_timer(TimerId::Wake(vcpu), at, now),
            None => {}
        }
    }

    /// Whether the guest of `vcpu` is paused.
    pub(crate) fn is_paused(&self, vcpu: VcpuId) -> bool {
        self.guests[self.vcpus[vcpu].guest].paused
    }

    /// What `vcpu` does when it stops, or is woken, and could go on.
    pub(crate) fn awake(&self, vcpu: VcpuId, since: Ns) -> ExecState {
        if self.is_paused(vcpu) {
            ExecState::Paused
        } else {
            ExecState::Runnable { since }
        }
    }
}
