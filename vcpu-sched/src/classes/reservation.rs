//! How a vCPU is scheduled: a budget in every period, or a weight in what is left.

use crate::ids::Ns;
use crate::normal_form::{Normalise, Writer};

/// What happens when the budget is used up before the period ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhaustion {
    /// Throttled until the budget is replenished: an upper bound as well as a lower one.
    Hard,
    /// The deadline is postponed by a period and the budget refilled (the CBS rule of Abeni and
    /// Buttazzo 1998): the vCPU goes on if nothing with an earlier deadline competes for the CPU.
    Soft,
}

/// A reservation: `budget` nanoseconds of host CPU in every `period`, within `deadline` of its
/// start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    budget: Ns,
    period: Ns,
    deadline: Ns,
    exhaustion: Exhaustion,
}

/// The shortest budget, ns. The cost of switching would exceed a shorter one.
pub const MIN_BUDGET: Ns = 10_000;
/// The longest period, ns. It keeps sums of times far from overflow.
pub const MAX_PERIOD: Ns = 3_600_000_000_000;

/// A bound on reservations was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationError {
    /// The budget is below [`MIN_BUDGET`].
    #[error("a budget of {0} ns is too short to run anything; give at least 10us")]
    BudgetTooShort(Ns),
    /// The budget exceeds the deadline.
    #[error(
        "a budget of {budget} ns does not fit before its deadline of {deadline} ns; make the budget shorter or the deadline later"
    )]
    BudgetExceedsDeadline {
        /// The requested budget, ns.
        budget: Ns,
        /// The requested relative deadline, ns.
        deadline: Ns,
    },
    /// The deadline exceeds the period.
    #[error(
        "a deadline of {deadline} ns lies behind the period of {period} ns; give a deadline no later than the period"
    )]
    DeadlineExceedsPeriod {
        /// The requested relative deadline, ns.
        deadline: Ns,
        /// The requested period, ns.
        period: Ns,
    },
    /// The period exceeds [`MAX_PERIOD`].
    #[error("a period of {0} ns is too long; give at most one hour")]
    PeriodTooLong(Ns),
}

impl Reservation {
    /// A reservation with `deadline` <= `period`, all in nanoseconds.
    ///
    /// # Errors
    /// One of the bounds is broken; the error names it.
    pub const fn new(
        budget: Ns,
        period: Ns,
        deadline: Ns,
        exhaustion: Exhaustion,
    ) -> Result<Self, ReservationError> {
        if budget < MIN_BUDGET {
            Err(ReservationError::BudgetTooShort(budget))
        } else if period > MAX_PERIOD {
            Err(ReservationError::PeriodTooLong(period))
        } else if deadline > period {
            Err(ReservationError::DeadlineExceedsPeriod { deadline, period })
        } else if budget > deadline {
            Err(ReservationError::BudgetExceedsDeadline { budget, deadline })
        } else {
            Ok(Self {
                budget,
                period,
                deadline,
                exhaustion,
            })
        }
    }

    /// A hard reservation whose deadline is its period.
    ///
    /// # Errors
    /// As [`Reservation::new`].
    pub const fn hard(budget: Ns, period: Ns) -> Result<Self, ReservationError> {
        Self::new(budget, period, period, Exhaustion::Hard)
    }

    /// A soft reservation whose deadline is its period.
    ///
    /// # Errors
    /// As [`Reservation::new`].
    pub const fn soft(budget: Ns, period: Ns) -> Result<Self, ReservationError> {
        Self::new(budget, period, period, Exhaustion::Soft)
    }

    /// The same reservation with `parts` 2^40ths of its share of a CPU. Where the budget would be too short
    /// to run anything, the period is longer instead.
    pub(crate) fn scaled(&self, parts: u64) -> Self {
        let whole = 1u128 << 40;
        let wanted = u128::from(self.budget) * u128::from(parts);
        let budget = (wanted / whole) as Ns;
        if budget >= MIN_BUDGET {
            return Self { budget, ..*self };
        }
        let longer = |time: Ns| {
            let scaled = u128::from(time) * u128::from(MIN_BUDGET) * whole;
            scaled.div_ceil(wanted.max(1)).min(u128::from(MAX_PERIOD)) as Ns
        };
        Self {
            budget: MIN_BUDGET,
            period: longer(self.period),
            deadline: longer(self.deadline),
            exhaustion: self.exhaustion,
        }
    }

    /// CPU time in each period, ns.
    #[must_use]
    pub const fn budget(&self) -> Ns {
        self.budget
    }

    /// Length of a period, ns.
    #[must_use]
    pub const fn period(&self) -> Ns {
        self.period
    }

    /// Deadline relative to the start of a period, ns.
    #[must_use]
    pub const fn deadline(&self) -> Ns {
        self.deadline
    }

    /// What happens when the budget is used up.
    #[must_use]
    pub const fn exhaustion(&self) -> Exhaustion {
        self.exhaustion
    }
}

/// The parameters of a vCPU's scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedParams {
    /// A guaranteed budget, served before all best effort.
    Reserved(Reservation),
    /// A share of what reservations leave, in proportion to the guest's weight (1 to 10,000;
    /// clamped into that range).
    BestEffort {
        /// Weight of the *guest*; its runnable vCPUs divide it among themselves.
        weight: u32,
    },
}

impl Normalise for Reservation {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            budget,
            period,
            deadline,
            exhaustion,
        } = self;
        to.number(budget);
        to.number(period);
        to.number(deadline);
        to.flag(exhaustion == Exhaustion::Hard);
    }
}

impl Normalise for SchedParams {
    fn normalise(&self, to: &mut Writer) {
        match self {
            Self::Reserved(reservation) => to.option(Some(reservation), |to, r| to.part(r)),
            Self::BestEffort { weight } => {
                to.flag(false);
                to.number(*weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_reservation_has_its_part_of_the_share_and_no_budget_that_is_too_short() {
        let r = Reservation::hard(8_000_000, 10_000_000).unwrap();
        let quarter = r.scaled(1 << 38);
        assert_eq!(
            (quarter.budget(), quarter.period()),
            (2_000_000, 10_000_000)
        );
        let little = r.scaled((1 << 40) / 8_000);
        assert_eq!(little.budget(), MIN_BUDGET);
        let share = little.budget() as f64 / little.deadline() as f64;
        assert!((share / 1e-4 - 1.0).abs() < 0.01, "{little:?}");
        let nothing = r.scaled(0);
        assert_eq!(
            (nothing.budget(), nothing.period()),
            (MIN_BUDGET, MAX_PERIOD)
        );
    }

    #[test]
    fn each_bound_is_refused_by_name() {
        use ReservationError as E;
        let new = |q, p, d| Reservation::new(q, p, d, Exhaustion::Hard);
        assert_eq!(
            new(9_999, 1_000_000, 1_000_000),
            Err(E::BudgetTooShort(9_999))
        );
        assert_eq!(
            new(20_000, 30_000, 40_000),
            Err(E::DeadlineExceedsPeriod {
                deadline: 40_000,
                period: 30_000
            })
        );
        assert_eq!(
            new(25_000, 30_000, 20_000),
            Err(E::BudgetExceedsDeadline {
                budget: 25_000,
                deadline: 20_000
            })
        );
        assert_eq!(
            new(10_000, MAX_PERIOD + 1, 10_000),
            Err(E::PeriodTooLong(MAX_PERIOD + 1))
        );
        assert!(
            new(10_000, 10_000, 10_000).is_ok(),
            "a whole CPU is a reservation too"
        );
    }
}
