//! Reservations as users write them, `5ms/10ms/8ms,hard`, and the durations in them, `50us`.

use std::fmt;
use std::str::FromStr;

use super::reservation::{Exhaustion, Reservation, ReservationError};
use crate::ids::Ns;

/// A text that is not a duration. The message quotes the text and shows a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write a whole number and ns, us, ms, s or m, as in 50us")]
pub struct ParseDurationError(pub String);

/// A text that is not a reservation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReservationError {
    /// The text does not have the form of a reservation.
    #[error(
        "'{0}' is not a reservation: write budget/period, as in 5ms/10ms, or \
         budget/period/deadline, and ,hard or ,soft after it if wanted"
    )]
    Form(String),
    /// One of the times in the text is not a duration.
    #[error(transparent)]
    Duration(#[from] ParseDurationError),
    /// The times in the text break a bound of the policy.
    #[error("'{text}' is a reservation that cannot be kept: {source}")]
    Bounds {
        /// The text as written.
        text: String,
        /// The bound that the times break.
        source: ReservationError,
    },
}

const UNITS: [(&str, Ns); 5] = [
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads `50us`, `4ms`, `10s`, `2m` or `100ns`. The result is in nanoseconds.
///
/// # Errors
/// [`ParseDurationError`] if the text has no unit or no whole number, or does not fit into 64 bits.
pub fn parse_duration_ns(text: &str) -> Result<Ns, ParseDurationError> {
    let trimmed = text.trim();
    let parsed = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .and_then(|split| {
            let (number, unit) = trimmed.split_at(split);
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
            number.parse::<Ns>().ok()?.checked_mul(*scale)
        });
    parsed.ok_or_else(|| ParseDurationError(text.to_owned()))
}

/// Writes `ns` nanoseconds with the largest unit of which they are a whole number.
#[must_use]
pub fn format_ns(ns: Ns) -> String {
    UNITS
        .iter()
        .find(|(_, scale)| ns != 0 && ns.is_multiple_of(*scale))
        .map_or_else(
            || "0ns".to_owned(),
            |(unit, scale)| format!("{}{unit}", ns / scale),
        )
}

impl Reservation {
    /// Reads a reservation whose budget is divided evenly among `vcpus` (at least 1) vCPUs, and gives
    /// the part of each. The whole budget may be longer than the period, the part of a vCPU may not.
    ///
    /// # Errors
    /// [`ParseReservationError`], as for [`Reservation::from_str`].
    pub fn parse_shared(text: &str, vcpus: u64) -> Result<Self, ParseReservationError> {
        let form = || ParseReservationError::Form(text.to_owned());
        let (times, exhaustion) = match text.trim().split_once(',') {
            None => (text.trim(), Exhaustion::Hard),
            Some((times, "hard")) => (times, Exhaustion::Hard),
            Some((times, "soft")) => (times, Exhaustion::Soft),
            Some(_) => return Err(form()),
        };
        let times: Vec<Ns> = times
            .split('/')
            .map(parse_duration_ns)
            .collect::<Result<_, _>>()?;
        let (budget, period, deadline) = match times[..] {
            [budget, period] => (budget, period, period),
            [budget, period, deadline] => (budget, period, deadline),
            _ => return Err(form()),
        };
        Self::new(budget / vcpus.max(1), period, deadline, exhaustion).map_err(|source| {
            ParseReservationError::Bounds {
                text: text.to_owned(),
                source,
            }
        })
    }
}

/// Reads `5ms/10ms` or `5ms/10ms/8ms` (budget, period and deadline), each with `,hard` (the default) or
/// `,soft` behind it.
impl FromStr for Reservation {
    type Err = ParseReservationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_shared(text, 1)
    }
}

/// Writes the reservation so that [`Reservation::from_str`] reads the same.
impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", format_ns(self.budget()), format_ns(self.period()));
        if self.deadline() != self.period() {
            text.push('/');
            text.push_str(&format_ns(self.deadline()));
        }
        text.push_str(match self.exhaustion() {
            Exhaustion::Hard => ",hard",
            Exhaustion::Soft => ",soft",
        });
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, ns) in [
            ("50us", 50_000),
            (" 4ms ", 4_000_000),
            ("10s", 10_000_000_000),
            ("2m", 120_000_000_000),
            ("7ns", 7),
        ] {
            assert_eq!(parse_duration_ns(text), Ok(ns));
        }
        for text in [
            "",
            "5",
            "ms",
            "1.5ms",
            "-1ms",
            "5 ms",
            "5h",
            "99999999999999999s",
            "٣ms",
        ] {
            let error = parse_duration_ns(text).expect_err(text);
            assert!(error.to_string().contains("as in 50us"), "{error}");
        }
    }

    #[test]
    fn a_duration_is_written_with_the_largest_whole_unit() {
        for text in ["50us", "4ms", "0ns", "61s", "1m", "1001ns"] {
            let ns = parse_duration_ns(text).expect(text);
            assert_eq!(format_ns(ns), text);
        }
    }

    #[test]
    fn a_reservation_reads_back_as_written() {
        for text in [
            "1ms/100ms,hard",
            "5ms/10ms/8ms,soft",
            "1500us/1s,hard",
            "70us/2m,soft",
        ] {
            let reservation: Reservation = text.parse().expect(text);
            assert_eq!(reservation.to_string(), text);
        }
    }

    #[test]
    fn a_reservation_is_hard_with_its_period_as_deadline_unless_it_names_others() {
        assert_eq!(
            "5ms/10ms".parse(),
            Ok(Reservation::hard(5_000_000, 10_000_000).expect("valid"))
        );
        assert_eq!(
            "5ms/10ms/8ms,soft".parse(),
            Ok(
                Reservation::new(5_000_000, 10_000_000, 8_000_000, Exhaustion::Soft)
                    .expect("valid")
            )
        );
    }

    #[test]
    fn a_shared_budget_is_divided_and_may_exceed_the_period() {
        assert_eq!(
            Reservation::parse_shared("20ms/10ms", 4),
            "5ms/10ms".parse()
        );
        let error = Reservation::parse_shared("30ms/10ms", 2).expect_err("15 ms in 10 ms");
        assert!(
            error.to_string().contains("make the budget shorter"),
            "{error}"
        );
    }

    #[test]
    fn a_reservation_that_cannot_be_kept_is_refused_with_the_bound_that_it_breaks() {
        for (text, part) in [
            ("0ms/10ms", "give at least 10us"),
            ("9us/10ms", "give at least 10us"),
            ("11ms/10ms", "make the budget shorter"),
            ("5ms/10ms/4ms", "make the budget shorter"),
            ("5ms/10ms/11ms", "no later than the period"),
            ("1ms/61m", "at most one hour"),
        ] {
            let error = text.parse::<Reservation>().expect_err(text).to_string();
            assert!(error.contains(text) && error.contains(part), "{error}");
        }
        for text in ["10us/10ms", "1ms/60m"] {
            text.parse::<Reservation>().expect(text);
        }
    }

    #[test]
    fn a_text_of_another_form_is_no_reservation() {
        for text in [
            "5ms",
            "",
            "1ms/2ms/3ms/4ms",
            "5ms/10ms,firm",
            "5ms/10ms,",
            "5/10",
        ] {
            text.parse::<Reservation>().expect_err(text);
        }
    }
}
