//! The constant bandwidth server: how one reservation's budget and deadline move.
//!
//! ```text
//!        Q                      Q                 budget refilled at each replenishment
//!   |----####-----------|-------####---------|
//!   r                 r+P                  r+2P
//!   |<------ D ---->|                             deadline of this budget: r + D
//! ```
//!
//! Sources: Abeni and Buttazzo, "Integrating multimedia applications in hard real-time systems"
//! (RTSS 1998) for the wake-up and the postponement rule; Marzario et al., "IRIS" (ECRTS 2004) for
//! the hard form (throttled until the next replenishment); Linux "sched/deadline: Implement
//! 'runtime overrun' accounting" and "sched/deadline: Use the revised wakeup rule for suspending
//! constrained dl tasks" (Abeni, Lelli, Scordino, Palopoli 2014) for debt and for deadlines before
//! the end of the period.
//!
//! **Changes of the reservation.** A new reservation is in force from the next budget on; the budget and the
//! deadline at hand stay as they are, and debt is kept. That is what Linux does in `__setparam_dl()`. What
//! Linux does not do is to wait with the bandwidth that becomes free: what was reserved is held until the
//! deadline at hand, and for a server that gives up the rest of its budget c until the 0-lag time
//! d - c * D / Q, before which it is ahead of a server of that bandwidth. Sources: the 0-lag time and the
//! inactive bandwidth of Lipari and Baruah, "Greedy reclamation of unused bandwidth in constant-bandwidth
//! servers" (ECRTS 2000); the leave/join rule for new weights under global EDF of Block, Anderson and Devi,
//! "Task reweighting under global scheduling on multiprocessors" (Real-Time Systems 39, 2008).

use crate::classes::reservation::{Exhaustion, Reservation};
use crate::ids::Ns;
use crate::normal_form::Writer;

/// One reservation at run time. Pure arithmetic, without queues and vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// What is in force: the admitted reservation, or less while host CPUs are offline
    /// (`rules/hotplug.rs`).
    reservation: Reservation,
    admitted: Reservation,
    /// What is admitted from the next budget on, if that is something else.
    next: Option<Reservation>,
    /// The last change has come into force, which [`Server::take_change`] has not yet reported.
    has_changed: bool,
    /// What is left of the budget, ns. Negative while an overrun is carried as debt.
    budget: i64,
    /// Absolute deadline, ns.
    deadline: Ns,
    /// Debt that has been paid off by new budgets since [`Server::take_repaid`], ns.
    repaid: Ns,
}

/// What a charge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charged {
    /// There is budget left: the deadline stands.
    InBudget,
    /// The budget was refilled and the deadline postponed.
    Postponed,
    /// Nothing is left until [`Server::replenish`] at this time, ns.
    Throttled(Ns),
}

/// What a wake-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// It may compete now.
    Eligible,
    /// Its deadline passed within its period (D < P): it gets no new budget before this time, ns.
    ThrottledUntil(Ns),
}

impl Server {
    pub(crate) fn new(reservation: Reservation) -> Self {
        // The deadline in the past makes the first wake-up start a fresh period.
        Self {
            reservation,
            admitted: reservation,
            next: None,
            has_changed: false,
            budget: 0,
            deadline: 0,
            repaid: 0,
        }
    }

    /// A server whose first period begins at `begin`, ns, and no earlier.
    pub(crate) fn beginning_at(reservation: Reservation, begin: Ns) -> Self {
        let deadline = begin.saturating_sub(reservation.period());
        Self {
            deadline: deadline.saturating_add(reservation.deadline()),
            ..Self::new(reservation)
        }
    }

    /// What is in force.
    pub(crate) const fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// What was admitted.
    pub(crate) const fn admitted(&self) -> &Reservation {
        &self.admitted
    }

    /// What is admitted for it in the end: the reservation from the next budget on, if that is another one.
    pub(crate) fn promised(&self) -> &Reservation {
        self.next.as_ref().unwrap_or(&self.admitted)
    }

    /// Admits another reservation, in force from the next budget on. If the server is `idle` and its last
    /// period is over, that is at once.
    pub(crate) fn change(&mut self, to: Reservation, idle: bool, now: Ns) {
        self.next = Some(to).filter(|to| *to != self.admitted);
        if idle {
            self.change_if_period_is_over(now);
        }
    }

    /// Puts the change of an idle server in force, if one is pending and its last period is over.
    pub(crate) fn change_if_period_is_over(&mut self, now: Ns) {
        if self.deadline == 0 || self.next_period() <= now {
            self.put_change_in_force();
        }
    }

    /// The admitted reservation, if it is another one than at the last call.
    #[inline]
    pub(crate) fn take_change(&mut self) -> Option<Reservation> {
        std::mem::take(&mut self.has_changed).then_some(self.admitted)
    }

    /// The debt that new budgets have paid off since the last call, ns.
    #[inline]
    pub(crate) fn take_repaid(&mut self) -> Ns {
        std::mem::take(&mut self.repaid)
    }

    /// A new budget of this many ns pays off debt first.
    fn repay_from(&mut self, budget: Ns) {
        let debt = self.budget.min(0).unsigned_abs();
        self.repaid = self.repaid.saturating_add(debt.min(budget));
    }

    /// Pays off the debt of a throttled server as far as it has been throttled. This comes before a change, so that
    /// the periods that have passed count by the reservation that was in force.
    pub(crate) fn pay_off(&mut self, now: Ns) {
        if self.next.is_some() || self.budget > 0 || self.next_period() > now {
            return;
        }
        let passed = (now - self.next_period()) / self.reservation.period() + 1;
        let needed = self.periods_to_clear_debt();
        self.add_periods(passed.min(needed.saturating_sub(1)));
    }

    fn put_change_in_force(&mut self) {
        if let Some(next) = self.next.take() {
            (self.admitted, self.reservation) = (next, next);
            self.budget = self.budget.min(next.budget() as i64);
            self.has_changed = true;
        }
    }

    /// Until when the bandwidth is used if the server may use the rest of its budget, ns: to the deadline at
    /// hand. A soft server that ran ahead of its budgets has taken only what no earlier deadline needed, so
    /// this is at most a period after `now`.
    pub(crate) fn used_until(&self, now: Ns) -> Ns {
        let most = now.saturating_add(self.admitted.period());
        self.deadline.min(most)
    }

    /// The same if the server gives up the rest of its budget: to the 0-lag time.
    pub(crate) fn zero_lag(&self, now: Ns) -> Ns {
        let most = now.saturating_add(self.admitted.period());
        self.unlimited_zero_lag().min(most)
    }

    fn unlimited_zero_lag(&self) -> Ns {
        let r = &self.reservation;
        let time = i128::from(self.budget) * i128::from(r.deadline()) / i128::from(r.budget());
        (i128::from(self.deadline) - time).clamp(0, i128::from(Ns::MAX)) as Ns
    }

    /// When the vCPU of this server may begin with another one, ns, without more than one budget in a time of one
    /// period: the 0-lag time, which is later than the deadline for a hard server in debt.
    pub(crate) fn another_begins(&self, now: Ns) -> Ns {
        let r = &self.reservation;
        let debt = match r.exhaustion() {
            Exhaustion::Hard => u128::from(self.budget.min(0).unsigned_abs()),
            Exhaustion::Soft => 0,
        };
        let more = debt * u128::from(r.deadline()) / u128::from(r.budget());
        let most = self.used_until(now);
        let most = most.saturating_add(Ns::try_from(more).unwrap_or(Ns::MAX));
        self.unlimited_zero_lag().min(most)
    }

    /// Puts a reduced reservation in force, or the admitted one again. The present budget shrinks with it,
    /// except for the `uncharged` ns that have been run on the one before. A larger budget comes with the
    /// next replenishment. Debt stays.
    pub(crate) fn put_in_force(&mut self, reservation: Reservation, uncharged: Ns) {
        self.reservation = reservation;
        let most = reservation.budget().saturating_add(uncharged);
        self.budget = self.budget.min(i64::try_from(most).unwrap_or(i64::MAX));
    }

    pub(crate) const fn budget(&self) -> i64 {
        self.budget
    }

    pub(crate) const fn deadline(&self) -> Ns {
        self.deadline
    }

    /// The wake-up rule: keep budget and deadline if what is left of the budget, used until the
    /// deadline, does not exceed the reserved bandwidth; otherwise start a fresh period now.
    pub(crate) fn wake(&mut self, now: Ns) -> Woken {
        self.check();
        if let Some(woken) = self.wake_before_first_period(now) {
            return woken;
        }
        let r = self.reservation;
        let constrained = r.deadline() < r.period();
        if self.deadline <= now {
            // With D < P the old budget's period may still be running: a fresh one now would give
            // two budgets in one period.
            let next = self.next_period();
            if constrained && self.deadline > 0 && now < next {
                return Woken::ThrottledUntil(next);
            }
            self.refresh(now);
        } else if self.exceeds_bandwidth(now) {
            if constrained {
                // Revised rule: run with what the density allows until the old deadline.
                let laxity = u128::from(self.deadline - now);
                let allowed = laxity * u128::from(r.budget()) / u128::from(r.deadline());
                self.budget = allowed.min(u128::from(r.budget())) as i64;
                if self.budget <= 0 {
                    return Woken::ThrottledUntil(self.next_period());
                }
            } else {
                self.refresh(now);
            }
        }
        self.check();
        Woken::Eligible
    }

    /// The wake-up of a server whose first period is yet to begin: a hard one waits for that, a soft one competes with
    /// the deadline that it has then.
    fn wake_before_first_period(&mut self, now: Ns) -> Option<Woken> {
        if self.budget > 0 || self.deadline == 0 || self.next_period() <= now {
            return None;
        }
        if self.reservation.exhaustion() == Exhaustion::Hard {
            return Some(Woken::ThrottledUntil(self.replenished_at()));
        }
        self.add_periods(self.periods_to_clear_debt());
        Some(Woken::Eligible)
    }

    /// [`Server::wake`] at `since`, of which the policy learns at `now`. If the deadline of a wake-up then
    /// has passed meanwhile, it wakes now.
    pub(crate) fn wake_since(&mut self, since: Ns, now: Ns) -> Woken {
        let late = since.saturating_add(self.reservation.deadline()) <= now;
        self.wake(if late { now } else { since })
    }

    /// budget / (deadline - now) > Q / D, without dividing.
    fn exceeds_bandwidth(&self, now: Ns) -> bool {
        let left = self.budget.max(0) as u128 * u128::from(self.reservation.deadline());
        let allowed = u128::from(self.deadline - now) * u128::from(self.reservation.budget());
        left > allowed
    }

    fn refresh(&mut self, now: Ns) {
        self.put_change_in_force();
        // Debt survives: only a positive rest is dropped. (A server in debt is throttled, so a
        // wake-up meets debt only if a caller does not follow the rules.)
        self.repay_from(self.reservation.budget());
        self.budget = self.reservation.budget() as i64 + self.budget.min(0);
        self.deadline = now.saturating_add(self.reservation.deadline());
    }

    /// When the period after the current deadline begins.
    fn next_period(&self) -> Ns {
        let r = &self.reservation;
        self.deadline
            .saturating_sub(r.deadline())
            .saturating_add(r.period())
    }

    /// Charges `ran` ns of CPU time that ended at `now`.
    pub(crate) fn charge(&mut self, ran: Ns, now: Ns) -> Charged {
        self.owe(ran);
        // When its reservation shrank, it may have used less CPU time than the time it was on a CPU.
        self.budget = self.budget.min(self.reservation.budget() as i64);
        if self.budget > 0 {
            return Charged::InBudget;
        }
        match self.reservation.exhaustion() {
            Exhaustion::Soft => {
                self.begin_changed_period(now);
                if self.budget <= 0 && self.reservation.exhaustion() == Exhaustion::Hard {
                    return Charged::Throttled(self.replenished_at());
                }
                self.add_periods(self.periods_to_clear_debt());
                self.check();
                Charged::Postponed
            }
            Exhaustion::Hard => {
                let at = self.replenished_at();
                if at <= now {
                    // It ran late, past its own replenishment: no need to stop.
                    if let Some(at) = self.replenish(now) {
                        return Charged::Throttled(at);
                    }
                    self.check();
                    return Charged::Postponed;
                }
                Charged::Throttled(at)
            }
        }
    }

    /// Takes `spent` ns from the budget, whatever is left of it. If the server may compete, the caller sees
    /// to the consequences.
    pub(crate) fn owe(&mut self, spent: Ns) {
        self.budget = self
            .budget
            .saturating_sub(i64::try_from(spent).unwrap_or(i64::MAX));
    }

    /// When a throttled server has a positive budget again, ns. If its reservation changes, that is the time
    /// of the change.
    pub(crate) fn replenished_at(&self) -> Ns {
        if self.next.is_some() {
            return self.next_period();
        }
        // Debt of more than one budget keeps it waiting for more than one period.
        let more = self.periods_to_clear_debt().saturating_sub(1);
        self.next_period()
            .saturating_add(more.saturating_mul(self.reservation.period()))
    }

    /// How many budgets it takes until there is a positive one again.
    fn periods_to_clear_debt(&self) -> u64 {
        if self.budget > 0 {
            return 0;
        }
        self.budget.unsigned_abs() / self.reservation.budget() + 1
    }

    /// Begins the period after the one at hand with the reservation that is in force from then on, if there is
    /// another one. The budget may not suffice for its debt.
    fn begin_changed_period(&mut self, now: Ns) {
        if self.next.is_none() {
            return;
        }
        let (start, was) = (self.next_period(), self.reservation.exhaustion());
        self.put_change_in_force();
        let r = self.reservation;
        // A soft server may be far ahead of its budgets. As a hard one it would be throttled for as long.
        let start = match (was, r.exhaustion()) {
            (Exhaustion::Soft, Exhaustion::Hard) => start.min(now),
            _ => start,
        };
        let budget = r.budget() as i64;
        self.repay_from(r.budget());
        self.budget = self.budget.saturating_add(budget).min(budget);
        self.deadline = start.saturating_add(r.deadline());
    }

    fn add_periods(&mut self, periods: u64) {
        let r = &self.reservation;
        let refill = u128::from(periods) * u128::from(r.budget());
        self.repay_from(u64::try_from(refill).unwrap_or(u64::MAX));
        let r = &self.reservation;
        let budget = i128::from(self.budget) + refill as i128;
        self.budget = budget.min(i128::from(r.budget())) as i64;
        self.deadline = self
            .deadline
            .saturating_add(periods.saturating_mul(r.period()));
    }

    /// The replenishment of a throttled hard reservation: debt is paid off, and the deadline is that of the
    /// period that begins. Returns the time at which there is a budget, ns, if the server stays in debt
    /// until then because its reservation has changed.
    pub(crate) fn replenish(&mut self, now: Ns) -> Option<Ns> {
        self.begin_changed_period(now);
        let at = self.replenished_at();
        if self.budget <= 0 && at > now {
            return Some(at);
        }
        self.add_periods(self.periods_to_clear_debt());
        if self.deadline <= now {
            // Long past, for example because the machine was stopped. A deadline in the past would put it
            // before all others.
            self.refresh(now);
        }
        self.check();
        None
    }

    /// The deadline that [`Server::replenish`] will set if it comes in time.
    pub(crate) fn deadline_after_replenishment(&self) -> Ns {
        if let Some(next) = &self.next {
            return self.next_period().saturating_add(next.deadline());
        }
        let periods = self.periods_to_clear_debt();
        self.deadline
            .saturating_add(periods.saturating_mul(self.reservation.period()))
    }

    /// The earliest deadline that it can have after a wake-up at `at`: the present one, if that is still to
    /// come, since [`Server::wake`] may keep it.
    pub(crate) fn deadline_when_woken(&self, at: Ns) -> Ns {
        let r = self.next.as_ref().unwrap_or(&self.reservation);
        let fresh = at.saturating_add(r.deadline());
        if self.deadline > at {
            self.deadline.min(fresh)
        } else {
            fresh
        }
    }

    /// What holds whenever a server may compete.
    fn check(&self) {
        debug_assert!(
            self.budget <= self.reservation.budget() as i64,
            "never more than one budget at hand"
        );
    }
}

impl Server {
    /// Writes its normal form. One that is `idle`, has no debt and whose last period is over is like one that has never
    /// had a budget.
    pub(crate) fn normalise(&self, idle: bool, to: &mut Writer) {
        let &Self {
            reservation,
            admitted,
            next,
            has_changed,
            budget,
            deadline,
            repaid,
        } = self;
        to.part(&reservation);
        to.part(&admitted);
        to.option(next, |to, next| to.part(&next));
        to.flag(has_changed);
        let is_over = idle && budget >= 0 && self.next_period() <= to.now();
        to.option(
            Some(deadline).filter(|&at| at > 0 && !is_over),
            Writer::time,
        );
        to.signed(if is_over { 0 } else { i128::from(budget) });
        to.number(repaid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ns = 1_000_000;

    fn server(q: Ns, p: Ns, d: Ns, exhaustion: Exhaustion) -> Server {
        Server::new(Reservation::new(q * MS, p * MS, d * MS, exhaustion).unwrap())
    }

    #[test]
    fn first_wake_up_starts_a_period_now() {
        let mut s = server(2, 7, 7, Exhaustion::Soft);
        assert_eq!(s.wake(3 * MS), Woken::Eligible);
        assert_eq!((s.budget(), s.deadline()), (2 * MS as i64, 10 * MS));
    }

    /// A server with Q = 2 and P = 7, as in the examples of Abeni and Buttazzo (1998). A job of 3
    /// that is released at 3 has its deadline moved from 10 to 17 when the budget of 2 is used up, and
    /// ends with 1 left. A job that is released at 12 may keep that pair: 1 <= (17 - 12) * 2 / 7. One
    /// that is released at 14 may not: 1 > (17 - 14) * 2 / 7.
    #[test]
    fn soft_server_postpones_and_then_keeps_its_pair_when_it_fits_the_bandwidth() {
        let mut s = server(2, 7, 7, Exhaustion::Soft);
        s.wake(3 * MS);
        assert_eq!(s.charge(2 * MS, 5 * MS), Charged::Postponed);
        assert_eq!((s.budget(), s.deadline()), (2 * MS as i64, 17 * MS));
        assert_eq!(s.charge(MS, 7 * MS), Charged::InBudget);
        assert_eq!(s.wake(12 * MS), Woken::Eligible);
        assert_eq!(
            (s.budget(), s.deadline()),
            (MS as i64, 17 * MS),
            "1 / 5 <= 2 / 7: kept"
        );
        assert_eq!(s.wake(14 * MS), Woken::Eligible);
        assert_eq!(
            (s.budget(), s.deadline()),
            (2 * MS as i64, 21 * MS),
            "1 / 3 > 2 / 7: fresh"
        );
    }

    #[test]
    fn budget_exhausted_hard_throttles_until_the_next_period() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.charge(2 * MS, 4 * MS), Charged::Throttled(10 * MS));
        s.replenish(10 * MS);
        assert_eq!((s.budget(), s.deadline()), (2 * MS as i64, 20 * MS));
    }

    #[test]
    fn overrun_is_debt_taken_from_the_next_budget() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(
            s.charge(2 * MS + 300_000, 4 * MS),
            Charged::Throttled(10 * MS)
        );
        s.replenish(10 * MS);
        assert_eq!(s.budget(), 1_700_000);
    }

    #[test]
    fn debt_of_several_budgets_throttles_for_several_periods() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(
            s.charge(7 * MS, 8 * MS),
            Charged::Throttled(30 * MS),
            "5 of debt: 3 budgets"
        );
        s.replenish(30 * MS);
        assert_eq!((s.budget(), s.deadline()), (MS as i64, 40 * MS));
    }

    #[test]
    fn debt_that_equals_the_budget_waits_for_one_more() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.charge(4 * MS, 5 * MS), Charged::Throttled(20 * MS));
    }

    #[test]
    fn hard_server_that_ran_past_its_replenishment_goes_on() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.charge(2 * MS, 12 * MS), Charged::Postponed);
        assert_eq!((s.budget(), s.deadline()), (2 * MS as i64, 20 * MS));
    }

    #[test]
    fn replenishment_long_past_starts_a_period_now() {
        let mut s = server(2, 10, 10, Exhaustion::Hard);
        s.wake(0);
        s.charge(2 * MS, 2 * MS);
        s.replenish(95 * MS);
        assert_eq!((s.budget(), s.deadline()), (2 * MS as i64, 105 * MS));
    }

    #[test]
    fn constrained_deadline_gives_no_second_budget_within_a_period() {
        let mut s = server(2, 10, 4, Exhaustion::Hard);
        s.wake(0);
        s.charge(MS, MS);
        assert_eq!(s.wake(5 * MS), Woken::ThrottledUntil(10 * MS));
        s.replenish(10 * MS);
        assert_eq!(s.deadline(), 14 * MS);
    }

    #[test]
    fn constrained_wake_up_that_would_exceed_its_density_gets_less_budget() {
        let mut s = server(2, 10, 4, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.wake(2 * MS), Woken::Eligible);
        assert_eq!(
            (s.budget(), s.deadline()),
            (MS as i64, 4 * MS),
            "2 left at half density: 1"
        );
    }

    #[test]
    fn a_reduced_server_keeps_its_debt_and_gets_its_whole_budget_with_the_next_period() {
        let mut s = server(8, 10, 10, Exhaustion::Hard);
        let half = Reservation::hard(4 * MS, 10 * MS).unwrap();
        s.wake(0);
        s.charge(2 * MS, 2 * MS);
        s.put_in_force(half, 0);
        assert_eq!(s.budget(), 4 * MS as i64, "6 were left");
        assert_eq!(s.charge(5 * MS, 7 * MS), Charged::Throttled(10 * MS));
        s.replenish(10 * MS);
        assert_eq!(s.budget(), 3 * MS as i64, "the overrun is still debt");
        s.put_in_force(*s.admitted(), 0);
        assert_eq!(s.charge(3 * MS, 13 * MS), Charged::Throttled(20 * MS));
        s.replenish(20 * MS);
        assert_eq!(s.budget(), 8 * MS as i64);
    }

    fn hard(q: Ns, p: Ns) -> Reservation {
        Reservation::hard(q * MS, p * MS).unwrap()
    }

    #[test]
    fn a_change_is_in_force_from_the_next_budget_on() {
        for to in [hard(8, 10), hard(1, 10), hard(4, 20)] {
            let mut s = server(4, 10, 10, Exhaustion::Hard);
            s.wake(0);
            s.charge(MS, MS);
            s.change(to, false, MS);
            assert_eq!((s.budget(), s.deadline()), (3 * MS as i64, 10 * MS));
            assert_eq!(s.charge(3 * MS, 5 * MS), Charged::Throttled(10 * MS));
            assert_eq!((s.take_change(), s.replenish(10 * MS)), (None, None));
            let pair = (s.budget(), s.deadline());
            assert_eq!(pair, (to.budget() as i64, 10 * MS + to.period()));
            assert_eq!((s.take_change(), s.take_change()), (Some(to), None));
        }
    }

    #[test]
    fn debt_beyond_a_smaller_budget_is_paid_off_at_the_new_rate() {
        let mut s = server(8, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.charge(13 * MS, 13 * MS), Charged::Postponed);
        s.change(hard(2, 10), false, 13 * MS);
        assert_eq!(s.charge(8 * MS, 19 * MS), Charged::Throttled(20 * MS));
        assert_eq!(s.replenish(20 * MS), Some(40 * MS), "3 of debt remain");
        assert_eq!(s.replenish(40 * MS), None);
        assert_eq!((s.budget(), s.deadline()), (MS as i64, 50 * MS));
    }

    #[test]
    fn debt_is_paid_off_at_the_old_rate_up_to_the_change() {
        let mut s = server(1, 10, 10, Exhaustion::Hard);
        s.wake(0);
        assert_eq!(s.charge(9 * MS, 9 * MS), Charged::Throttled(90 * MS));
        s.pay_off(35 * MS);
        s.change(hard(2, 10), false, 35 * MS);
        assert_eq!(s.replenished_at(), 40 * MS);
        assert_eq!(s.replenish(40 * MS), Some(60 * MS), "5 of 8 remain at 35");
        assert_eq!(s.replenish(60 * MS), None);
        assert_eq!((s.budget(), s.deadline()), (MS as i64, 70 * MS));
    }

    #[test]
    fn a_soft_server_that_ran_ahead_is_not_throttled_for_that_when_it_becomes_hard() {
        let mut s = server(1, 10, 10, Exhaustion::Soft);
        s.wake(0);
        (1..=50).for_each(|ms| assert_eq!(s.charge(MS, ms * MS), Charged::Postponed));
        s.change(hard(1, 10), false, 50 * MS);
        assert_eq!(s.charge(MS, 51 * MS), Charged::Postponed);
        assert_eq!((s.budget(), s.deadline()), (MS as i64, 61 * MS));
        assert_eq!(s.charge(MS, 52 * MS), Charged::Throttled(61 * MS));
    }

    #[test]
    fn an_idle_server_changes_at_once_when_its_period_is_over() {
        let mut s = server(2, 10, 4, Exhaustion::Hard);
        s.wake(0);
        s.charge(MS, MS);
        s.change(hard(1, 10), true, 9 * MS);
        assert_eq!(s.take_change(), None, "the period lasts until 10");
        s.change(hard(1, 10), true, 10 * MS);
        assert_eq!(s.take_change(), Some(hard(1, 10)));
    }

    /// With 4 in 10, 2 of them used: at 5 a server of that bandwidth would have had 2.
    #[test]
    fn bandwidth_is_used_until_the_zero_lag_time() {
        let mut s = server(4, 10, 10, Exhaustion::Hard);
        s.wake(0);
        s.charge(2 * MS, 2 * MS);
        assert_eq!(
            (s.zero_lag(2 * MS), s.used_until(2 * MS)),
            (5 * MS, 10 * MS)
        );
        s.charge(2 * MS, 4 * MS);
        assert_eq!(s.zero_lag(4 * MS), 10 * MS);
    }

    #[test]
    fn huge_times_do_not_overflow() {
        let mut s = server(2, 10, 10, Exhaustion::Soft);
        s.wake(u64::MAX - 5);
        s.charge(u64::MAX, u64::MAX);
        s.replenish(u64::MAX);
        assert!(s.budget() <= 2 * MS as i64);
    }
}
