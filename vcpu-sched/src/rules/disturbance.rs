//! Wake-ups of halted vCPUs that come at the wrong moment.
//!
//! A halted vCPU sleeps in the hypervisor on a thread of its own. When an interrupt wakes it, that thread
//! needs a host CPU for some microseconds before the policy learns of the wake-up, and the host's
//! scheduler chooses the CPU, perhaps one with a more urgent donor. The woken vCPU is charged for that
//! time ([`Scheduler::charge_elsewhere`]), but the time has been taken from the other. One such wake-up is
//! harmless; a guest that sends interrupts to all its halted vCPUs without end would take half a CPU so.
//!
//! So each guest has a *credit* of disturbance, a token bucket (`state/disturbance_credit.rs`). A halted
//! vCPU of a guest without credit does not sleep in the hypervisor, where an interrupt would wake it at any
//! moment. Instead the policy wakes it after a while, it runs when its scheduling context has its turn, and
//! if there is no interrupt for it, it halts again. That makes the wake-ups of this guest late, and costs
//! the other guests nothing.

use crate::events::Events;
use crate::ids::{CpuId, CpuTime, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::ScState;

/// A vCPU without credit is woken no earlier and no later than after this time, ns.
const WAKE_AFTER: (Ns, Ns) = (1_000_000, 16_000_000);

impl<E: Events> Scheduler<E> {
    /// The thread on which `vcpu` slept has used `spent` to wake the vCPU or to let it sleep,
    /// up to `now`, on `cpu` if that is one of the pool's. The vCPU is charged. See
    /// [`Scheduler::may_sleep`] for what follows if that CPU has a more urgent donor. The wake-up itself is
    /// reported by [`Scheduler::wake`].
    pub fn charge_sleep(&mut self, vcpu: VcpuId, spent: CpuTime, cpu: Option<CpuId>, now: Ns) {
        let Some(guest) = self.vcpus.get(vcpu).map(|v| v.guest) else {
            return;
        };
        if cpu.is_some_and(|cpu| self.disturbs(vcpu, cpu, now)) {
            let guests = self.guests.len() as u64;
            let credit = &mut self.guests[guest].disturbance;
            credit.refill(now, guests);
            credit.spend(spent.0);
            self.counting.counters_mut(vcpu).disturbing_ns += spent.0;
        }
        self.counting.counters_mut(vcpu).sleep_ns += spent.0;
        self.charge_elsewhere(vcpu, spent, now);
    }

    /// Whether time on `cpu` for `vcpu` is taken from a reservation of another guest. It is not if `vcpu`
    /// could have that CPU: if it has a budget and is more urgent.
    fn disturbs(&self, vcpu: VcpuId, cpu: CpuId, now: Ns) -> bool {
        let Some(running) = self.cpus.running(cpu) else {
            return false;
        };
        let donor = &self.vcpus[running.donor];
        let could_have_it = || {
            self.available(vcpu, now)
                .is_some_and(|(rank, _)| rank.preempts(donor.sc.rank()))
        };
        donor.sc.class.is_deadline() && donor.guest != self.vcpus[vcpu].guest && !could_have_it()
    }

    /// Whether the scheduling context of `vcpu` waits for its budget, so that `vcpu` cannot run on it, awake
    /// or not.
    #[must_use]
    pub fn is_throttled(&self, vcpu: VcpuId) -> bool {
        let state = self.vcpus.get(vcpu).map(|v| v.sc.state);
        state == Some(ScState::Throttled)
    }

    /// Whether `vcpu`, which halts, may sleep where an interrupt wakes it at any moment.
    ///
    /// # Errors
    /// Its guest has disturbed more urgent vCPUs too much. The error is the time, ns, at which `vcpu` is to
    /// be woken instead, to check for an interrupt.
    pub fn may_sleep(&mut self, vcpu: VcpuId, now: Ns) -> Result<(), Ns> {
        let Some(v) = self.vcpus.get(vcpu) else {
            return Ok(());
        };
        let guests = self.guests.len() as u64;
        let credit = &mut self.guests[v.guest].disturbance;
        credit.refill(now, guests);
        if credit.any_left() {
            return Ok(());
        }
        let (least, most) = WAKE_AFTER;
        Err(now.saturating_add(credit.time_to_refill(guests).clamp(least, most)))
    }
}
