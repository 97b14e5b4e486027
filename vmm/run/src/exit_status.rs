//! The status with which `baton` ends. A number means the same for every command (`docs/exit-status.md`). As with `env`
//! and `docker run`, Baton's own numbers are not those that guests use.

use std::process::ExitCode;

use crate::summary::RunSummary;

/// The highest code of a guest that becomes the status of `baton`.
pub const MAX_GUEST_CODE: u8 = 122;

/// How a command of `baton` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// The command succeeded. For a run: its guests succeeded, or the user stopped them.
    Success,
    /// The command did its work, and the answer is negative: this host cannot run guests, or a benchmark was
    /// interrupted or its result cannot be trusted.
    Negative,
    /// One guest of a run failed, with this code, 1 to [`MAX_GUEST_CODE`].
    Guest(u8),
    /// Several guests of a run failed, or one failed without a code or with a higher one.
    Guests,
    /// The guests of a run succeeded, and a reservation was not delivered although the user requires that.
    Undelivered,
    /// Baton itself failed: the command line or the configuration is wrong, or the command could not be started or
    /// finished.
    Failed,
}

impl ExitStatus {
    /// The status of a run.
    #[must_use]
    pub fn of_run(summary: &RunSummary) -> Self {
        let mut failed = summary.guests.iter().filter(|guest| !guest.ok);
        match (failed.next(), failed.next()) {
            (None, _) => Self::Success,
            (Some(guest), None) => match guest.exit_code.and_then(|code| u8::try_from(code).ok()) {
                Some(code @ 1..=MAX_GUEST_CODE) => Self::Guest(code),
                _ => Self::Guests,
            },
            (Some(_), Some(_)) => Self::Guests,
        }
    }

    /// The same if all reservations are required to be delivered, and `undelivered` has a sentence for each that
    /// was not. The failure of a guest matters more.
    #[must_use]
    pub fn requiring_delivery(self, undelivered: &[String]) -> Self {
        match self {
            Self::Success if !undelivered.is_empty() => Self::Undelivered,
            status => status,
        }
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Negative => 1,
            Self::Guest(code) => code,
            // As with xargs.
            Self::Guests => 123,
            Self::Undelivered => 126,
            // As with env, timeout and docker; 124 means something else for timeout.
            Self::Failed => 125,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::GuestSummary;

    fn run(ends: &[(bool, Option<u32>)]) -> RunSummary {
        let guest = |&(ok, exit_code): &(bool, Option<u32>)| GuestSummary {
            ok,
            exit_code,
            ..GuestSummary::default()
        };
        RunSummary {
            guests: ends.iter().map(guest).collect(),
            ..RunSummary::default()
        }
    }

    #[test]
    fn the_code_of_a_guest_is_handed_on_only_if_it_alone_failed_and_no_number_is_batons() {
        let well = (true, Some(0));
        for (ends, code) in [
            (&[well][..], 0),
            (&[(true, None), well], 0),
            (&[well, (false, Some(3))], 3),
            (&[(false, Some(122))], 122),
            (&[(false, Some(123))], 123),
            (&[(false, Some(125))], 123),
            (&[(false, Some(256))], 123),
            (&[(false, Some(0))], 123),
            (&[(false, None)], 123),
            (&[(false, Some(3)), (false, Some(3))], 123),
        ] {
            assert_eq!(ExitStatus::of_run(&run(ends)).code(), code, "{ends:?}");
        }
    }

    #[test]
    fn a_reservation_that_was_not_delivered_matters_less_than_a_guest_that_failed() {
        let missed = ["guest db, vCPU 0: ...".to_owned()];
        for (status, of_missed) in [
            (ExitStatus::Success, ExitStatus::Undelivered),
            (ExitStatus::Guest(3), ExitStatus::Guest(3)),
            (ExitStatus::Guests, ExitStatus::Guests),
        ] {
            assert_eq!(status.requiring_delivery(&missed), of_missed);
            assert_eq!(status.requiring_delivery(&[]), status);
        }
    }

    #[test]
    fn the_page_about_exit_statuses_has_every_number() {
        let page = include_str!("../../../docs/exit-status.md");
        for status in [
            ExitStatus::Success,
            ExitStatus::Negative,
            ExitStatus::Guests,
            ExitStatus::Undelivered,
            ExitStatus::Failed,
        ] {
            assert!(
                page.contains(&format!("| {} |", status.code())),
                "{status:?}"
            );
        }
        assert!(page.contains(&format!("| 1 to {MAX_GUEST_CODE} |")));
    }
}
