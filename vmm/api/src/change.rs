//! A change of a guest that has joined.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;
use vcpu_sched::{
    Exhaustion, ParseReservationError, Reservation, ReservationError, parse_duration_ns,
};

/// The text of a reservation by which a vCPU gives its reservation back.
const NONE: &str = "none";
/// The largest weight.
const MAX_WEIGHT: u32 = 10_000;

/// What is to change. All of it changes, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestChange {
    /// The vCPU that is to change. Absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Its new reservation; `none` takes the reservation away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationText>,
    /// The new weight of vCPUs without a reservation, 1 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub weight: Option<u32>,
    /// The host CPUs on which it may run, such as `2-3`, or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_cpus: Option<String>,
}

/// A reservation, as text or as an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ReservationText {
    /// Such as `5ms/10ms,hard`, or `none`.
    Text(String),
    /// Each part by itself.
    Object(ReservationObject),
}

/// The parts of a reservation, each a time such as `5ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationObject {
    /// CPU time in each period.
    pub budget: String,
    /// The period.
    pub period: String,
    /// Deadline, from the start of the period. Absent: the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Whether the vCPU gets more than its budget when there is time left over.
    #[serde(default)]
    pub soft: bool,
}

/// A change whose parts make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedChange {
    /// The vCPU; `None`: all of them.
    pub vcpu: Option<u32>,
    /// The new reservation; `Some(None)` takes it away.
    pub reservation: Option<Option<Reservation>>,
    /// The new weight.
    pub weight: Option<u32>,
    /// The host CPUs as text; `Some(None)` is all of them.
    pub host_cpus: Option<Option<String>>,
}

/// A change makes no sense, whatever the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// There is nothing in it.
    #[error("nothing is to change; give a reservation, a weight or host CPUs")]
    Nothing,
    /// The weight is out of its range.
    #[error("a weight of {0} is out of range; give 1 to {MAX_WEIGHT}")]
    Weight(u32),
    /// A vCPU has a weight or a reservation, not both.
    #[error("a vCPU with a reservation has no weight; give one of the two")]
    Both,
    /// The text is no reservation.
    #[error(transparent)]
    Text(#[from] ParseReservationError),
    /// A part of the reservation is no time.
    #[error(transparent)]
    Time(#[from] vcpu_sched::ParseDurationError),
    /// The parts make no reservation.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
}

impl GuestChange {
    /// Checks all that can be checked without the guest.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<CheckedChange, ChangeError> {
        let reservation = self.reservation.as_ref().map(ReservationText::check);
        let reservation = reservation.transpose()?;
        match self.weight {
            Some(weight) if !(1..=MAX_WEIGHT).contains(&weight) => {
                return Err(ChangeError::Weight(weight));
            }
            Some(_) if matches!(reservation, Some(Some(_))) => return Err(ChangeError::Both),
            None if reservation.is_none() && self.host_cpus.is_none() => {
                return Err(ChangeError::Nothing);
            }
            _ => {}
        }
        let host_cpus = self.host_cpus.as_deref();
        Ok(CheckedChange {
            vcpu: self.vcpu,
            reservation,
            weight: self.weight,
            host_cpus: host_cpus.map(|text| (text.trim() != "all").then(|| text.to_owned())),
        })
    }
}

impl ReservationText {
    fn check(&self) -> Result<Option<Reservation>, ChangeError> {
        match self {
            Self::Text(text) if text.trim() == NONE => Ok(None),
            Self::Text(text) => Ok(Some(text.parse()?)),
            Self::Object(object) => object.check().map(Some),
        }
    }
}

impl ReservationObject {
    fn check(&self) -> Result<Reservation, ChangeError> {
        let budget = parse_duration_ns(&self.budget)?;
        let period = parse_duration_ns(&self.period)?;
        let deadline = self
            .deadline
            .as_deref()
            .map(parse_duration_ns)
            .transpose()?;
        let exhaustion = match self.soft {
            true => Exhaustion::Soft,
            false => Exhaustion::Hard,
        };
        let deadline = deadline.unwrap_or(period);
        Ok(Reservation::new(budget, period, deadline, exhaustion)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> Result<CheckedChange, String> {
        let change: GuestChange = serde_json::from_str(json).map_err(|error| error.to_string())?;
        change.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_reservation_is_a_text_or_an_object_and_both_mean_the_same() {
        let text = change(r#"{"vcpu": 1, "reservation": "5ms/10ms,soft"}"#).expect("a change");
        let object =
            r#"{"vcpu": 1, "reservation": {"budget": "5ms", "period": "10ms", "soft": true}}"#;
        assert_eq!(change(object), Ok(text.clone()));
        assert_eq!(text.vcpu, Some(1));
        assert_eq!(text.reservation, Some("5ms/10ms,soft".parse().ok()));
        let none = change(r#"{"reservation": "none", "weight": 7}"#).expect("a change");
        assert_eq!((none.reservation, none.weight), (Some(None), Some(7)));
        let all = change(r#"{"host_cpus": "all"}"#).expect("a change");
        assert_eq!(all.host_cpus, Some(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_sentence() {
        for (json, part) in [
            ("{}", "nothing is to change"),
            (r#"{"vcpu": 0}"#, "nothing is to change"),
            (r#"{"weight": 0}"#, "1 to 10000"),
            (r#"{"weight": 10001}"#, "1 to 10000"),
            (
                r#"{"weight": 5, "reservation": "1ms/2ms"}"#,
                "one of the two",
            ),
            (r#"{"reservation": "3ms/2ms"}"#, "budget"),
            (r#"{"reservation": {"budget": "3", "period": "2ms"}}"#, "3"),
            (r#"{"color": "red"}"#, "unknown field"),
        ] {
            let error = change(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
