//! Reservations as users write them: `5ms/10ms/8ms,hard`.

use std::fmt;
use std::str::FromStr;

use vcpu_sched::Exhaustion;

use crate::units::{UnitError, format_ns, parse_duration};

/// CPU time that a vCPU is promised: `budget_ns` in each period, by `deadline_ns` after it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// CPU time per period, nanoseconds.
    pub budget_ns: u64,
    /// Period, nanoseconds.
    pub period_ns: u64,
    /// Relative deadline, nanoseconds; at most the period, at least the budget.
    pub deadline_ns: u64,
    /// Hard: never more than the budget in a period. Soft: more when there is time left over.
    pub hard: bool,
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_reservation(self))
    }
}

impl FromStr for Reservation {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_reservation(text)
    }
}

/// Reads `5ms/10ms`, `5ms/10ms/8ms`, each with `,hard` (the default) or `,soft`.
///
/// # Errors
/// What is wrong with it, as [`UnitError`].
pub fn parse_reservation(text: &str) -> Result<Reservation, UnitError> {
    parse_shared_reservation(text, 1)
}

/// Reads a reservation whose budget `vcpus` (at least 1) vCPUs divide evenly: each one's part. The
/// whole budget may be longer than the period, each part may not.
///
/// # Errors
/// What is wrong with it, as [`UnitError`].
pub fn parse_shared_reservation(text: &str, vcpus: u64) -> Result<Reservation, UnitError> {
    let bad = || UnitError::Reservation(text.to_owned());
    let (times, hard) = match text.trim().split_once(',') {
        None => (text.trim(), true),
        Some((times, "hard")) => (times, true),
        Some((times, "soft")) => (times, false),
        Some(_) => return Err(bad()),
    };
    let mut ns = Vec::with_capacity(3);
    for part in times.split('/') {
        let duration = parse_duration(part)?;
        ns.push(u64::try_from(duration.as_nanos()).map_err(|_| bad())?);
    }
    let (budget_ns, period_ns, deadline_ns) = match ns[..] {
        [budget, period] => (budget, period, period),
        [budget, period, deadline] => (budget, period, deadline),
        _ => return Err(bad()),
    };
    let budget_ns = budget_ns / vcpus.max(1);
    // The policy knows what can be kept; whether it is hard or soft does not matter to that.
    vcpu_sched::Reservation::new(budget_ns, period_ns, deadline_ns, Exhaustion::Hard).map_err(
        |source| UnitError::ReservationBounds {
            text: text.to_owned(),
            source,
        },
    )?;
    Ok(Reservation {
        budget_ns,
        period_ns,
        deadline_ns,
        hard,
    })
}

/// Writes a reservation so that [`parse_reservation`] reads the same.
#[must_use]
pub fn format_reservation(reservation: &Reservation) -> String {
    let mut text = format!(
        "{}/{}",
        format_ns(reservation.budget_ns),
        format_ns(reservation.period_ns)
    );
    if reservation.deadline_ns != reservation.period_ns {
        text.push('/');
        text.push_str(&format_ns(reservation.deadline_ns));
    }
    text.push_str(if reservation.hard { ",hard" } else { ",soft" });
    text
}
