//! The scheduling classes behind one interface. The rules treat all classes alike; which class a scheduling
//! context has matters only here.

use crate::classes::cbs::{Charged, Server, Woken};
use crate::classes::fair::{FairInputs, FairShare};
use crate::classes::rank::Rank;
use crate::classes::reservation::{Reservation, SchedParams};
use crate::classes::virtual_time::{VirtualSpan, VirtualTime};
use crate::ids::{CpuTime, Ns};
use crate::normal_form::Writer;

/// By what a scheduling context is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SchedClass {
    /// A reservation: budget and deadline.
    Deadline(Server),
    /// Best effort: a weight.
    Fair(FairShare),
}

/// What a scheduling context does at the moment, as far as its class is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It does not compete.
    Idle,
    /// It competes, or would if its vCPU did not run or wait.
    Competing,
    /// It is the donor on a CPU. Its last CPU time has yet to be charged.
    Donating { uncharged: CpuTime },
    /// It waits for its next budget.
    Throttled,
}

/// What it means for a scheduling context that CPU time was charged to it while it was no donor, or
/// beside what it donated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChargedElsewhere {
    /// Nothing.
    Unchanged,
    /// Its deadline or tag has moved.
    Moved,
    /// It has no budget before this time, ns. It was throttled already if it was before.
    ThrottledUntil(Ns),
    /// It is the donor of a decision that has used up the budget.
    DonorExhausted,
}

impl SchedClass {
    pub(crate) fn new(params: SchedParams) -> Self {
        match params {
            SchedParams::Reserved(reservation) => Self::Deadline(Server::new(reservation)),
            SchedParams::BestEffort { weight } => Self::Fair(FairShare::new(weight)),
        }
    }

    /// The same for a vCPU that has existed before, and whose budgets begin at `begin`, ns, or later.
    pub(crate) fn beginning_at(params: SchedParams, begin: Ns) -> Self {
        match params {
            SchedParams::Reserved(reservation) => {
                Self::Deadline(Server::beginning_at(reservation, begin))
            }
            SchedParams::BestEffort { .. } => Self::new(params),
        }
    }

    #[inline]
    pub(crate) const fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline(_))
    }

    /// The server of a reservation.
    #[inline]
    pub(crate) const fn server(&self) -> Option<&Server> {
        match self {
            Self::Deadline(server) => Some(server),
            Self::Fair(_) => None,
        }
    }

    #[inline]
    pub(crate) const fn server_mut(&mut self) -> Option<&mut Server> {
        match self {
            Self::Deadline(server) => Some(server),
            Self::Fair(_) => None,
        }
    }

    #[inline]
    pub(crate) const fn rank(&self, fifo_seq: u64) -> Rank {
        match self {
            Self::Deadline(server) => Rank::Deadline(server.deadline(), fifo_seq),
            Self::Fair(fair) => Rank::Fair(fair.tag(), fifo_seq),
        }
    }

    /// The start tag in the fair order.
    #[inline]
    pub(crate) const fn tag(&self) -> Option<VirtualTime> {
        match self {
            Self::Deadline(_) => None,
            Self::Fair(fair) => Some(fair.tag()),
        }
    }

    /// CPU time by which it is ahead of others, where virtual time is `virtual_time`, ns.
    pub(crate) fn lead(&self, virtual_time: VirtualTime) -> Ns {
        match self {
            Self::Deadline(_) => 0,
            Self::Fair(fair) => fair.lead(virtual_time),
        }
    }

    /// It starts ahead of others by so much.
    pub(crate) fn owe(&mut self, lead: Ns, virtual_time: VirtualTime) {
        if let Self::Fair(fair) = self {
            fair.owe(lead, virtual_time);
        }
    }

    /// It competes again, since `since`, of which the policy learns at `now`.
    #[inline]
    pub(crate) fn wake(&mut self, since: Ns, now: Ns, inputs: &FairInputs) -> Woken {
        match self {
            Self::Deadline(server) => server.wake_since(since, now),
            Self::Fair(fair) => {
                fair.wake(inputs);
                Woken::Eligible
            }
        }
    }

    /// Charges `ran`, which ended at `now`. With `slice_ends`, a slice of best effort ends however short
    /// it was.
    #[inline]
    pub(crate) fn charge(
        &mut self,
        ran: CpuTime,
        slice_ends: bool,
        now: Ns,
        inputs: &FairInputs,
    ) -> Charged {
        match self {
            Self::Deadline(server) => server.charge(ran.0, now),
            Self::Fair(fair) => {
                let ended = fair.charge(ran.0, inputs);
                if slice_ends && !ended {
                    fair.end_slice(inputs.sharers);
                }
                if ended || slice_ends {
                    Charged::Postponed
                } else {
                    Charged::InBudget
                }
            }
        }
    }

    /// How much of `ran` exceeds the budget or the slice.
    #[inline]
    pub(crate) fn overrun(&self, ran: CpuTime, slice: Ns) -> CpuTime {
        let left = match self {
            Self::Deadline(server) => server.budget().max(0).unsigned_abs(),
            Self::Fair(fair) => fair.left(slice),
        };
        CpuTime(ran.0.saturating_sub(left))
    }

    /// Charges what other threads have `spent`, up to `now`, as if the vCPU had woken, run for so long and
    /// halted again.
    #[inline]
    pub(crate) fn charge_elsewhere(
        &mut self,
        spent: CpuTime,
        activity: Activity,
        now: Ns,
        inputs: &FairInputs,
    ) -> ChargedElsewhere {
        match self {
            Self::Deadline(server) => charge_server_elsewhere(server, spent, activity, now),
            Self::Fair(fair) => {
                if fair.charge(spent.0, inputs) {
                    ChargedElsewhere::Moved
                } else {
                    ChargedElsewhere::Unchanged
                }
            }
        }
    }

    /// Its vCPU has halted.
    #[inline]
    pub(crate) fn halt(&mut self, sharers: u32) {
        if let Self::Fair(fair) = self {
            fair.end_slice(sharers);
        }
    }

    /// Starts the next budget. Returns when there is one, ns, if that is later.
    #[inline]
    pub(crate) fn replenish(&mut self, now: Ns) -> Option<Ns> {
        self.server_mut()?.replenish(now)
    }

    /// The reservation that has come into force since the last call, if one has.
    #[inline]
    pub(crate) fn take_change(&mut self) -> Option<Reservation> {
        self.server_mut()?.take_change()
    }

    /// Goes from a queue where virtual time is `from` to one where it is `to`.
    pub(crate) fn rebase(&mut self, from: VirtualTime, to: VirtualTime) {
        if let Self::Fair(fair) = self {
            fair.rebase(from, to);
        }
    }

    /// When throttling ends. Best effort is never throttled.
    #[inline]
    pub(crate) fn replenished_at(&self) -> Ns {
        match self {
            Self::Deadline(server) => server.replenished_at(),
            Self::Fair(_) => Ns::MAX,
        }
    }

    /// When a decision that begins at `now` ends by itself. `None`: not before something happens. Best
    /// effort gets a slice only if it is `contended`.
    #[inline]
    pub(crate) fn decision_end(
        &self,
        now: Ns,
        slice: Ns,
        contended: impl FnOnce() -> bool,
    ) -> Option<Ns> {
        match self {
            Self::Deadline(server) => {
                Some(now.saturating_add(server.budget().max(1).unsigned_abs()))
            }
            Self::Fair(fair) => contended().then(|| now.saturating_add(fair.left(slice))),
        }
    }

    /// When best effort that wakes up may end a decision that begins at `now`, if it may at all.
    #[inline]
    pub(crate) const fn preemptible_at(&self, now: Ns, slice: Ns) -> Ns {
        match self {
            Self::Deadline(_) => now,
            Self::Fair(fair) => now.saturating_add(fair.until_preemptible(slice)),
        }
    }

    /// The start tag of the last slice that it has run in after `ran` more.
    #[inline]
    pub(crate) fn tag_after(&self, ran: CpuTime, slice: Ns, sharers: u32) -> Option<VirtualTime> {
        match self {
            Self::Deadline(_) => None,
            Self::Fair(fair) => Some(fair.tag_after(ran.0, slice, sharers)),
        }
    }

    /// The tag if its slice ended after `ran` more; `None` if best effort that wakes may not end it.
    #[inline]
    pub(crate) fn tag_if_preempted(
        &self,
        ran: CpuTime,
        slice: Ns,
        sharers: u32,
    ) -> Option<VirtualTime> {
        match self {
            Self::Deadline(_) => None,
            Self::Fair(fair) => fair.tag_if_preempted(ran.0, slice, sharers),
        }
    }

    /// Moves a fair tag with the virtual time of its queue. False for a reservation.
    pub(crate) fn shift(&mut self, by: VirtualSpan) -> bool {
        match self {
            Self::Deadline(_) => false,
            Self::Fair(fair) => {
                fair.shift(by);
                true
            }
        }
    }

    /// The rank that it would have if it competed now, and the CPU time that it has left, ns. `None`: it
    /// has none left.
    #[inline]
    pub(crate) fn available(
        mut self,
        fifo_seq: u64,
        activity: Activity,
        now: Ns,
        inputs: &FairInputs,
    ) -> Option<(Rank, Ns)> {
        match (&mut self, activity) {
            (Self::Deadline(_), Activity::Throttled) => return None,
            (Self::Deadline(server), Activity::Donating { uncharged }) => server.owe(uncharged.0),
            (Self::Deadline(server), Activity::Idle) => {
                if let Woken::ThrottledUntil(_) = server.wake(now) {
                    return None;
                }
            }
            (Self::Fair(fair), Activity::Idle) => fair.wake(inputs),
            _ => {}
        }
        let left = match &self {
            Self::Deadline(server) => u64::try_from(server.budget())
                .ok()
                .filter(|&left| left > 0)?,
            Self::Fair(_) => Ns::MAX,
        };
        Some((self.rank(fifo_seq), left))
    }

    /// Whether a CPU on which it has been the donor for `ran` may be shared with work of this rank.
    #[inline]
    pub(crate) fn shares_with(
        &self,
        visitor: Rank,
        fifo_seq: u64,
        ran: CpuTime,
        sharers: u32,
    ) -> bool {
        match (self, visitor) {
            (Self::Fair(fair), Rank::Fair(tag, _)) => tag <= fair.tag_now(ran.0, sharers),
            _ => visitor.preempts(self.rank(fifo_seq)),
        }
    }
}

#[inline]
fn charge_server_elsewhere(
    server: &mut Server,
    spent: CpuTime,
    activity: Activity,
    now: Ns,
) -> ChargedElsewhere {
    match activity {
        // It is charged for the decision under way when that stops, and throttled then.
        Activity::Donating { uncharged } => {
            server.owe(spent.0);
            if i64::try_from(uncharged.0).unwrap_or(i64::MAX) >= server.budget() {
                return ChargedElsewhere::DonorExhausted;
            }
            return ChargedElsewhere::Unchanged;
        }
        Activity::Throttled => {
            server.owe(spent.0);
            return ChargedElsewhere::ThrottledUntil(server.replenished_at());
        }
        Activity::Idle => {
            if let Woken::ThrottledUntil(_) = server.wake(now) {
                server.owe(spent.0);
                return ChargedElsewhere::ThrottledUntil(server.replenished_at());
            }
        }
        Activity::Competing => {}
    }
    match server.charge(spent.0, now) {
        Charged::Throttled(at) => ChargedElsewhere::ThrottledUntil(at),
        // What is idle has no place that could move.
        Charged::Postponed if activity == Activity::Competing => ChargedElsewhere::Moved,
        Charged::Postponed | Charged::InBudget => ChargedElsewhere::Unchanged,
    }
}

impl SchedClass {
    /// Writes its normal form. `idle`: its scheduling context does not compete.
    pub(crate) fn normalise(&self, idle: bool, to: &mut Writer) {
        to.flag(self.is_deadline());
        match self {
            Self::Deadline(server) => server.normalise(idle, to),
            Self::Fair(fair) => to.part(fair),
        }
    }
}
