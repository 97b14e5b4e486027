//! CPU time that is spent for a vCPU while it does not run: by the thread on which it sleeps until an
//! interrupt, by the threads of its guest's devices. It is charged to a claim like the time that a vCPU
//! runs, as if the vCPU had woken, run for so long and halted again; what exceeds the budget is debt.
//!
//! Source: charging a driver domain's work to the guest for which it is done, Gupta, Cherkasova, Gardner,
//! Vahdat, "Enforcing Performance Isolation Across Virtual Machines in Xen" (Middleware 2006), SEDF-DC.

use std::cmp::Reverse;

use crate::classes::cbs::{Charged, Woken};
use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, SchedClass};
use crate::state::timer_queue::sc_timer;

impl<E: Events> Scheduler<E> {
    /// Another thread than that of a run has used `spent` ns of CPU time for `vcpu`, up to `now`. Its
    /// claim pays, wherever it is; one that is out of budget by that waits until the debt is paid off.
    /// Does nothing for a vCPU that does not exist.
    pub fn charge_elsewhere(&mut self, vcpu: VcpuId, spent: Ns, now: Ns) {
        let Some(v) = self.vcpus.get_mut(vcpu.index()).filter(|_| spent > 0) else {
            return;
        };
        v.counters.charged_ns += spent;
        v.counters.elsewhere_ns += spent;
        if v.ec.state == ExecState::Gone {
            return;
        }
        match &v.sc.class {
            SchedClass::Deadline(_) => self.owe_reserved(vcpu, spent, now),
            SchedClass::Fair(_) => self.owe_best_effort(vcpu, spent, now),
        }
        self.check();
    }

    fn owe_reserved(&mut self, claim: VcpuId, spent: Ns, now: Ns) {
        let sc = &mut self.vcpus[claim.index()].sc;
        let state = sc.state;
        let SchedClass::Deadline(server) = &mut sc.class else {
            return;
        };
        match state {
            // It is charged for the run under way when that stops, and throttled then.
            ScState::OnCpu(cpu) => {
                server.owe(spent);
                let left = server.budget();
                let since = self.cpus[cpu.index()].running.map(|running| running.since);
                let ran = now.saturating_sub(since.unwrap_or(now));
                if i64::try_from(ran).unwrap_or(i64::MAX) >= left {
                    self.kick(cpu, now);
                }
            }
            ScState::Throttled => {
                server.owe(spent);
                let at = server.replenished_at();
                self.set_timer(sc_timer(claim), at, now);
            }
            ScState::Off => match server.wake(now) {
                Woken::Eligible => {
                    if let Charged::Throttled(at) = server.charge(spent, now) {
                        self.throttle(claim, at, now);
                    }
                }
                Woken::ThrottledUntil(_) => {
                    server.owe(spent);
                    let at = server.replenished_at();
                    self.throttle(claim, at, now);
                }
            },
            ScState::Queued(_) | ScState::Parked(_) | ScState::Proxied => {
                match server.charge(spent, now) {
                    Charged::InBudget => {}
                    Charged::Postponed => self.take_new_place(claim, now),
                    Charged::Throttled(at) => self.throttle(claim, at, now),
                }
            }
        }
    }

    fn owe_best_effort(&mut self, claim: VcpuId, spent: Ns, now: Ns) {
        let slice = self.config.slice_ns;
        let v = &mut self.vcpus[claim.index()];
        let sharers = self.guests[v.guest.index()].runnable;
        let virtual_time = self.domains[v.ec.domain].virtual_time;
        if let SchedClass::Fair(fair) = &mut v.sc.class
            && fair.charge(spent, slice, sharers, virtual_time)
        {
            self.take_new_place(claim, now);
        }
    }

    /// The deadline or tag of `claim` has moved: so does its place among those with which it competes.
    fn take_new_place(&mut self, claim: VcpuId, now: Ns) {
        self.to_back_of_equals(claim);
        match self.vcpus[claim.index()].sc.state {
            ScState::Queued(domain) => {
                self.dequeue(claim);
                self.enqueue(claim, domain);
            }
            ScState::OnCpu(cpu) if self.busy.contains(cpu.0) => {
                let rank = self.vcpus[claim.index()].sc.rank();
                self.busy.set(cpu.0, Reverse(rank));
                // Another CPU may do the least urgent work now.
                self.keep_all_timers(now);
            }
            _ => {}
        }
    }
}
