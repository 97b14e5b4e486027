//! CPU time that is spent for a vCPU while it does not run: by the thread on which it sleeps until an
//! interrupt, by the threads of its guest's devices. It is charged to the vCPU's scheduling context as if
//! the vCPU had woken, run for so long and halted again. What exceeds the budget is debt.
//!
//! Source: charging a driver domain's work to the guest for which it is done, Gupta, Cherkasova, Gardner,
//! Vahdat, "Enforcing Performance Isolation Across Virtual Machines in Xen" (Middleware 2006), SEDF-DC.

use crate::classes::sched_class::ChargedElsewhere;
use crate::events::Events;
use crate::ids::{CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::timer_queue::TimerId;

impl<E: Events> Scheduler<E> {
    /// Another thread than that of a run has used `spent` for `vcpu`, up to `now`. The
    /// vCPU's scheduling context is charged, whatever it does. If that uses up its budget, it waits until
    /// the debt is paid off. Does nothing for a vCPU that does not exist.
    pub fn charge_elsewhere(&mut self, vcpu: VcpuId, spent: CpuTime, now: Ns) {
        let Some(v) = self.vcpus.get(vcpu).filter(|_| spent > CpuTime::ZERO) else {
            return;
        };
        let gone = v.ec.state == ExecState::Gone;
        let counters = self.counting.counters_mut(vcpu);
        counters.charged_ns += spent.0;
        counters.elsewhere_ns += spent.0;
        if gone {
            return;
        }
        self.deliver_elsewhere(vcpu, spent, now);
        let (activity, inputs) = (self.activity(vcpu, now), self.fair_inputs(vcpu));
        let sc = &mut self.vcpus[vcpu].sc;
        let state = sc.state;
        let charged = sc.class.charge_elsewhere(spent, activity, now, &inputs);
        self.follow_budget(vcpu);
        match charged {
            // An idle one may have got a deadline that it keeps if it wakes in time.
            ChargedElsewhere::Unchanged if state == ScState::Off => {
                self.deadline_changed(vcpu, now);
            }
            ChargedElsewhere::Unchanged => {}
            ChargedElsewhere::Moved => self.take_new_place(vcpu, now),
            ChargedElsewhere::ThrottledUntil(at) if state == ScState::Throttled => {
                self.set_timer(TimerId::Sc(vcpu), at, now);
            }
            ChargedElsewhere::ThrottledUntil(at) => self.throttle(vcpu, at, now),
            ChargedElsewhere::DonorExhausted => self.kick_for(vcpu, now),
        }
        self.settle_change(vcpu, now);
        self.check();
    }

    /// The deadline or tag of `vcpu` has moved, and so has its place among those with which it competes.
    fn take_new_place(&mut self, vcpu: VcpuId, now: Ns) {
        self.move_behind_equals(vcpu);
        match self.vcpus[vcpu].sc.state {
            ScState::Queued(domain) => {
                self.dequeue(vcpu);
                self.enqueue(vcpu, domain);
                // With another reservation, its deadline may be earlier than before.
                if self.vcpus[vcpu].sc.class.is_deadline() {
                    self.kick_for(vcpu, now);
                }
            }
            ScState::OnCpu(cpu) => {
                let rank = self.vcpus[vcpu].sc.rank();
                self.donor_rank_changed(cpu, rank, now);
            }
            // The end of its bounded wait may be more urgent than before.
            ScState::Parked(_) => self.deadline_changed(vcpu, now),
            _ => {}
        }
    }
}
