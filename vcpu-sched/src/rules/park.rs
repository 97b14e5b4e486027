//! Parking: a scheduling context that has nothing to run waits aside, behind the vCPU that it waits for.
//!
//! It is parked when its holder runs elsewhere or sleeps (`proxy.rs`). It competes again when that vCPU
//! stops, wakes or is gone, or hands its lock on. If its own vCPU could run, the wait is bounded, because
//! that vCPU may have an interrupt to take.

use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Sets the scheduling context of `vcpu` aside until `on` stops running or wakes.
    pub(crate) fn park(&mut self, vcpu: VcpuId, on: VcpuId, now: Ns) {
        let bounded = self.vcpus[vcpu].ec.state != ExecState::Halted;
        self.settle_deadlines(vcpu, now);
        self.dequeue(vcpu);
        self.vcpus[vcpu].sc.state = ScState::Parked(on);
        self.parked.join(vcpu, on);
        if bounded {
            let end = now.saturating_add(self.config.park_ns);
            self.set_timer(TimerId::Sc(vcpu), end, now);
        }
        self.emit(now, Event::Park { vcpu, on });
    }

    /// `holder` has stopped running, woken up, or is gone: what is parked behind it competes again. While
    /// it runs on, that would only be parked again.
    pub(crate) fn unpark_waiters(&mut self, holder: VcpuId, now: Ns) {
        if !matches!(self.vcpus[holder].ec.state, ExecState::Running(_)) {
            self.unpark_all(holder, now);
        }
    }

    /// All that is parked behind `holder` competes again.
    pub(crate) fn unpark_all(&mut self, holder: VcpuId, now: Ns) {
        while let Some(vcpu) = self.parked.first(holder) {
            self.unpark(vcpu, now, now);
        }
    }

    /// `holder` stops on `cpu`, which picks next: what is parked behind it and may run on `cpu` competes
    /// in that pick. What is pinned elsewhere competes after it (`Scheduler::pick`): if other CPUs were
    /// kicked now and the holder then resumed here, the kicks would be wasted, and two holders whose
    /// waiters are pinned to each other's CPU would preempt each other for ever.
    pub(crate) fn unpark_here(&mut self, cpu: CpuId, holder: VcpuId, now: Ns) {
        let mut next = self.parked.first(holder);
        while let Some(vcpu) = next {
            next = self.parked.next(vcpu);
            if self.may_run_on(vcpu, cpu) {
                self.unpark(vcpu, now, now);
            }
        }
        self.cpus.row_mut(cpu).just_stopped = Some(holder);
    }

    /// The scheduling context of `vcpu` has been parked for long enough behind a halted holder: its own
    /// vCPU runs, and publishes anew what it waits for.
    pub(crate) fn end_bounded_wait(&mut self, vcpu: VcpuId, due: Ns, now: Ns) {
        self.drop_edge(vcpu, now);
        self.unpark(vcpu, due, now);
    }

    fn unpark(&mut self, vcpu: VcpuId, since: Ns, now: Ns) {
        self.dequeue(vcpu);
        self.activate(vcpu, since, now);
    }
}
