//! Wake-ups of halted vCPUs that come at the wrong moment.
//!
//! A halted vCPU sleeps in the hypervisor on a thread of its own. When an interrupt wakes it, that thread
//! needs a host CPU for some microseconds before the policy hears of it, and the host's scheduler chooses
//! the CPU, perhaps one on which a more urgent claim pays. The vCPU's own claim is charged for that time
//! ([`Scheduler::charge_elsewhere`]), but the time has been taken from somebody else. One such wake-up is
//! harmless; a guest that sends interrupts to all its halted vCPUs without end would take half a CPU so.
//!
//! So each guest has a *credit* of disturbance, a token bucket: all guests together may take
//! [`SHARE_PERMILLE`](crate::state::disturbance_credit::SHARE_PERMILLE) of a host CPU from more urgent claims. A halted vCPU of a guest without credit does
//! not sleep in the hypervisor, where an interrupt would wake it at any moment: the policy wakes it after
//! a while, it runs when its claim has its turn, and if there is no interrupt for it, it halts again. That
//! makes the wake-ups of this guest late, and costs nobody else anything.

use crate::classes::rank::more_urgent;
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ScState, SchedClass};

/// A vCPU without credit is looked at no earlier and no later than after this time, ns.
const LOOK_AGAIN: (Ns, Ns) = (1_000_000, 16_000_000);

impl<E: Events> Scheduler<E> {
    /// The thread on which `vcpu` slept has used `spent` ns of CPU time to wake it or to let it sleep, up
    /// to `now`, on `cpu` if that is one of the pool's. Its claim pays; see [`Scheduler::may_sleep`] for
    /// what follows if a more urgent claim pays on that CPU. The wake-up itself is told by
    /// [`Scheduler::wake`].
    pub fn charge_sleep(&mut self, vcpu: VcpuId, spent: Ns, cpu: Option<CpuId>, now: Ns) {
        let Some(v) = self.vcpus.get(vcpu.index()) else {
            return;
        };
        let guest = v.guest;
        let running = cpu.and_then(|cpu| self.cpus.get(cpu.index())?.running);
        let disturbs = running.is_some_and(|running| {
            let donor = &self.vcpus[running.donor.index()];
            let reserved = matches!(donor.sc.class, SchedClass::Deadline(_));
            // It may have that CPU if its claim could take it, and could pay.
            let may = self
                .left(vcpu, now)
                .is_some_and(|(rank, _)| more_urgent(rank, donor.sc.rank()));
            reserved && donor.guest != guest && !may
        });
        if disturbs {
            let guests = self.guests.len() as u64;
            let credit = &mut self.guests[guest.index()].credit;
            credit.pass(now, guests);
            credit.spend(spent);
            self.vcpus[vcpu.index()].counters.disturbing_ns += spent;
        }
        self.vcpus[vcpu.index()].counters.sleep_ns += spent;
        self.charge_elsewhere(vcpu, spent, now);
    }

    /// Whether the claim of `vcpu` waits for its budget, so that it cannot run on it, awake or not.
    #[must_use]
    pub fn is_throttled(&self, vcpu: VcpuId) -> bool {
        let state = self.vcpus.get(vcpu.index()).map(|v| v.sc.state);
        state == Some(ScState::Throttled)
    }

    /// Whether `vcpu`, which halts, may sleep where an interrupt wakes it at any moment.
    ///
    /// # Errors
    /// When it is to be woken instead, ns, to see whether there is an interrupt: its guest has
    /// disturbed more urgent claims too much.
    pub fn may_sleep(&mut self, vcpu: VcpuId, now: Ns) -> Result<(), Ns> {
        let Some(v) = self.vcpus.get(vcpu.index()) else {
            return Ok(());
        };
        let guests = self.guests.len() as u64;
        let credit = &mut self.guests[v.guest.index()].credit;
        credit.pass(now, guests);
        if credit.left > 0 {
            return Ok(());
        }
        let (least, most) = LOOK_AGAIN;
        Err(now.saturating_add(credit.missing(guests).clamp(least, most)))
    }
}
