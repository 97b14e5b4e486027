//! What a reservation promises, and what comes of it: for each budget, until its deadline.
//!
//! ```text
//!  a budget becomes usable          used        deadline
//!  ───────────┬──────────────────####────────────┼───────
//!      promised += Q     delivered += used       │ the rest: lost if the vCPU could use it,
//!                                                │ and not demanded if it could not
//! ```
//!
//! A budget is promised when it becomes usable (`cbs.rs`). What is charged to it by its deadline is delivered,
//! whichever vCPU of the guest ran. What is left at its deadline is lost if the scheduling context competed then.
//! Otherwise, that is if the vCPU slept, was paused or ran on another vCPU's budget, nobody demanded it. If the
//! server falls behind, each further period that passes promises a budget and loses it. The server itself keeps
//! its one budget, which then counts for the period at hand.
//!
//! A set of reservations that was admitted loses nothing while the host runs the executors (`admission.rs`). So
//! what is lost is lost to the host as far as the host took time from the CPUs on which the vCPU may run since the
//! budget became usable, or since the last one that was served in time, and to overcommit beyond that.
//!
//! At any time, promised = delivered + lost to the host + lost to overcommit + undemanded + [`Delivery::pending`].

use crate::classes::cbs::Server;
use crate::counters::Counters;
use crate::ids::Ns;
use crate::normal_form::Writer;

/// The budget at hand of one reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Delivery {
    /// What is promised by `deadline` and has not been delivered, ns.
    pending: Ns,
    /// Absolute, ns. Later than that of the server if the server has fallen behind.
    deadline: Ns,
    /// What has been charged beyond the budgets at hand, and is delivered of the next ones, ns.
    ahead: Ns,
    /// What the host had taken when the budget became usable, ns. After a miss, less than that: it can take the
    /// server several periods to catch up.
    taken_before: Ns,
    /// A deadline was missed since the last budget became usable.
    has_missed: bool,
}

/// Whether the scheduling context could use its budget at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// It competed for a CPU, or had one.
    Competes,
    /// It did not compete.
    None,
}

impl Delivery {
    /// Nothing is promised yet. `taken`: what the host has taken so far, ns.
    pub(crate) const fn new(taken: Ns) -> Self {
        Self {
            pending: 0,
            deadline: 0,
            ahead: 0,
            taken_before: taken,
            has_missed: false,
        }
    }

    /// Its vCPU may run on other CPUs, from which the host has taken `taken` ns so far.
    pub(crate) const fn move_to(&mut self, taken: Ns) {
        self.taken_before = taken;
    }

    /// What is promised by the deadline at hand and has not been delivered, ns.
    pub(crate) const fn pending(&self) -> Ns {
        self.pending
    }

    /// `ran` ns have been charged to the budget.
    pub(crate) fn deliver(&mut self, counters: &mut Counters, ran: Ns) {
        let delivered = ran.min(self.pending);
        self.pending -= delivered;
        self.ahead += ran - delivered;
        counters.delivered_ns += delivered;
    }

    /// Of `ran` ns that ended at `now`, what ran by the deadline. If the host took time meanwhile, the moment is
    /// not known, and counts as early.
    pub(crate) const fn by_deadline(&self, ran: Ns, now: Ns) -> Ns {
        ran.saturating_sub(now.saturating_sub(self.deadline))
    }

    /// Settles the deadlines that have passed at `now`. Returns how many were missed. `taken`: what the host has
    /// taken so far, ns.
    pub(crate) fn settle(
        &mut self,
        counters: &mut Counters,
        server: &Server,
        demand: Demand,
        taken: Ns,
        now: Ns,
    ) -> u64 {
        if now <= self.deadline {
            return 0;
        }
        if demand == Demand::None {
            self.give_up(counters);
            return 0;
        }
        // A server that has caught up has a budget left though the whole promise was kept.
        if self.pending == 0 && server.budget() <= 0 {
            return 0;
        }
        let (budget, period) = (server.admitted().budget(), server.admitted().period());
        let more = (now - 1 - self.deadline) / period;
        let misses = u64::from(self.pending > 0) + more;
        let lost = self.pending + more * budget;
        counters.promised_ns += (more + 1) * budget;
        self.pending = budget;
        self.deadline = self.deadline.saturating_add((more + 1) * period);
        let to_host = lost.min(taken.saturating_sub(self.taken_before));
        self.taken_before = self.taken_before.saturating_add(to_host);
        self.has_missed |= misses > 0;
        counters.lost_to_host_ns += to_host;
        counters.lost_to_overcommit_ns += lost - to_host;
        counters.deadline_misses += misses;
        misses
    }

    /// Nobody demands what is left of the budget.
    pub(crate) fn give_up(&mut self, counters: &mut Counters) {
        counters.undemanded_ns += std::mem::take(&mut self.pending);
    }

    /// The scheduling context competes again at `now` with a budget whose deadline has passed: it is promised
    /// within the time that a budget has.
    pub(crate) fn resume(&mut self, counters: &mut Counters, server: &Server, now: Ns) {
        let budget = server.budget().max(0).unsigned_abs();
        if now > self.deadline && budget > self.pending {
            counters.promised_ns += budget - self.pending;
            self.pending = budget;
            self.deadline = now.saturating_add(server.admitted().deadline());
        }
    }

    /// The server may have another budget than before.
    #[inline]
    pub(crate) fn follow(&mut self, counters: &mut Counters, server: &mut Server, taken: Ns) {
        let repaid = server.take_repaid().min(self.ahead);
        if server.deadline() > self.deadline {
            self.promise(counters, server, repaid);
            if !std::mem::take(&mut self.has_missed) {
                self.taken_before = taken;
            }
        } else if server.deadline() == self.deadline {
            self.shrink(counters, server, repaid);
        }
        // Otherwise the server has fallen behind: its late budget has been promised already.
        let debt = server.budget().min(0).unsigned_abs();
        self.ahead = (self.ahead - repaid).min(debt);
    }

    /// [`Delivery::follow`] for a budget that became usable in the past: the host may have taken time since.
    pub(crate) fn follow_late(&mut self, counters: &mut Counters, server: &mut Server) {
        self.follow(counters, server, self.taken_before);
    }

    /// A new budget is usable, of which `repaid` ns had been delivered ahead of time.
    fn promise(&mut self, counters: &mut Counters, server: &Server, repaid: Ns) {
        let usable = server.budget().max(0).unsigned_abs();
        let budget = usable + repaid;
        counters.promised_ns += budget.saturating_sub(self.pending);
        lose_without_demand(counters, server, self.pending.saturating_sub(budget));
        counters.delivered_ns += repaid;
        let withheld = withheld(server, budget);
        counters.promised_ns += withheld;
        counters.lost_to_host_ns += withheld;
        (self.pending, self.deadline) = (usable, server.deadline());
    }

    /// The budget at hand is smaller than it was: `repaid` ns of it had been delivered ahead of time, and the rest
    /// has been taken back.
    fn shrink(&mut self, counters: &mut Counters, server: &Server, repaid: Ns) {
        let usable = server.budget().max(0).unsigned_abs();
        let less = self.pending.saturating_sub(usable);
        let delivered = less.min(repaid);
        counters.delivered_ns += delivered;
        lose_without_demand(counters, server, less - delivered);
        self.pending -= less;
    }
}

impl Delivery {
    /// Writes its normal form. `taken`: what the host has taken so far, ns. `idle`: its scheduling context does not
    /// compete.
    pub(crate) fn normalise(&self, taken: Ns, idle: bool, to: &mut Writer) {
        let &Self {
            pending,
            deadline,
            ahead,
            taken_before,
            has_missed,
        } = self;
        to.number(pending);
        if idle && pending == 0 {
            to.future(deadline);
        } else {
            to.time(deadline);
        }
        to.number(ahead);
        to.length(taken.saturating_sub(taken_before));
        to.flag(has_missed);
    }
}

/// `time` of a budget was taken back: by the host if host CPUs are offline, and otherwise because the vCPU slept
/// or its reservation was changed.
fn lose_without_demand(counters: &mut Counters, server: &Server, time: Ns) {
    if server.reservation() == server.admitted() {
        counters.undemanded_ns += time;
    } else {
        counters.lost_to_host_ns += time;
    }
}

/// How much larger `budget` would be if host CPUs were not offline, ns.
fn withheld(server: &Server, budget: Ns) -> Ns {
    let (less, all) = (server.reservation(), server.admitted());
    if less == all {
        return 0;
    }
    let product = |a: Ns, b: Ns| u128::from(a) * u128::from(b);
    let whole = u128::from(budget) * product(all.budget(), less.period())
        / product(less.budget(), all.period()).max(1);
    u64::try_from(whole)
        .unwrap_or(budget)
        .saturating_sub(budget)
}
