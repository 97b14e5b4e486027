//! Wake-ups of halted vCPUs that come at the wrong moment.
//!
//! A halted vCPU sleeps in the hypervisor on a thread of its own. When an interrupt wakes it, that thread
//! needs a host CPU for some microseconds before the policy hears of it, and the host's scheduler chooses
//! the CPU, perhaps one on which a more urgent claim pays. The vCPU's own claim is charged for that time
//! ([`Scheduler::charge_elsewhere`]), but the time has been taken from somebody else. One such wake-up is
//! harmless; a guest that sends interrupts to all its halted vCPUs without end would take half a CPU so.
//!
//! So each guest has a *credit* of disturbance, a token bucket: all guests together may take
//! [`SHARE_PERMILLE`] of a host CPU from more urgent claims. A halted vCPU of a guest without credit does
//! not sleep in the hypervisor, where an interrupt would wake it at any moment: the policy wakes it after
//! a while, it runs when its claim has its turn, and if there is no interrupt for it, it halts again. That
//! makes the wake-ups of this guest late, and costs nobody else anything.

use crate::contexts::{ClaimState, Entitlement};
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::preempt::more_urgent;
use crate::scheduler::Scheduler;

/// Thousandths of one host CPU's time that the wake-ups of all guests may take from more urgent claims.
/// The exit that each causes on the CPU of such a claim is of the same order, and comes on top.
const SHARE_PERMILLE: u64 = 3;
/// Credit of a guest that has disturbed nobody for long, ns: a wake-up of each of some vCPUs at once.
const MOST_CREDIT: i64 = 500_000;
/// A vCPU without credit is looked at no earlier and no later than after this time, ns.
const LOOK_AGAIN: (Ns, Ns) = (1_000_000, 16_000_000);

/// What a guest's wake-ups may take from others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    left: i64,
    /// When `left` was right, ns.
    at: Ns,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            left: MOST_CREDIT,
            at: 0,
        }
    }
}

impl Credit {
    /// Lets time pass, where `guests` share the pool's.
    fn pass(&mut self, now: Ns, guests: u64) {
        let time = now.saturating_sub(self.at);
        let more = time.saturating_mul(SHARE_PERMILLE) / (1000 * guests);
        if more > 0 {
            // What is too short to count yet counts the next time.
            self.at = self
                .at
                .saturating_add(more * 1000 * guests / SHARE_PERMILLE);
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(more).min(MOST_CREDIT);
        }
    }

    fn spend(&mut self, spent: Ns) {
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(spent);
    }

    /// How long until there is some, ns.
    fn missing(&self, guests: u64) -> Ns {
        let deficit = self.left.min(0).unsigned_abs();
        deficit.saturating_mul(1000 * guests) / SHARE_PERMILLE
    }
}

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
            let reserved = matches!(donor.sc.entitlement, Entitlement::Reserved(_));
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
        state == Some(ClaimState::Throttled)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_with_time_and_is_not_saved_up_beyond_the_most() {
        let mut credit = Credit::default();
        credit.spend(1_500_000);
        assert_eq!(credit.missing(2), 1_000_000 * 2000 / 3);
        credit.pass(300_000_000, 2);
        assert_eq!(credit.left, -1_000_000 + 450_000);
        credit.pass(100_000_000_000, 2);
        assert_eq!(credit.left, MOST_CREDIT);
    }

    #[test]
    fn short_times_add_up() {
        let mut credit = Credit::default();
        credit.spend(MOST_CREDIT.unsigned_abs());
        (1..=1000).for_each(|n| credit.pass(n * 100, 1));
        assert!((299..=301).contains(&credit.left), "{credit:?}");
    }
}
