//! The end of a vCPU.

use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Removes a vCPU for good; its reservation is free again. If it runs, its CPU is kicked, and it is gone
    /// when it stops.
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
            ExecState::Halted | ExecState::Runnable { .. } => {
                self.finish(vcpu, now);
                if let ScState::OnCpu(cpu) = self.vcpus[vcpu].sc.state {
                    self.kick(cpu, now);
                }
            }
        }
    }

    /// The execution context is gone, and with it its scheduling context, unless that is the donor on a CPU
    /// just now: then `stop.rs` ends it.
    pub(crate) fn finish(&mut self, vcpu: VcpuId, now: Ns) {
        if !matches!(self.vcpus[vcpu].ec.state, ExecState::Halted) {
            self.count_runnable(vcpu, -1);
        }
        self.drop_edge(vcpu, now);
        self.clear_timer(TimerId::Wake(vcpu));
        self.end_wait(vcpu, now);
        if self.vcpus[vcpu].sc.state == ScState::Throttled {
            self.end_throttling(vcpu, now);
        }
        self.vcpus[vcpu].ec.state = ExecState::Gone;
        self.give_back_reservation(vcpu, now);
        if !matches!(self.vcpus[vcpu].sc.state, ScState::OnCpu(_)) {
            self.dequeue(vcpu);
        }
        self.unpark_waiters(vcpu, now);
    }

    fn give_back_reservation(&mut self, vcpu: VcpuId, now: Ns) {
        let v = &mut self.vcpus[vcpu];
        let Some(server) = v.sc.class.server() else {
            return;
        };
        self.admission.give_back(server.admitted(), v.ec.allowed);
        if let Some(since) = v.sc.reduced_since.take() {
            self.counting.counters_mut(vcpu).reduced_ns += now.saturating_sub(since);
        }
        if self.cpus.online() != self.cpus.all() {
            self.admit_again(now);
        }
    }
}
