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

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Negative => 1,
            Self::Guest(code) => code,
            // As with xargs.
            Self::Guests => 123,
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
    fn the_page_about_exit_statuses_has_every_number() {
        let page = include_str!("../../../docs/exit-status.md");
        for status in [
            ExitStatus::Success,
            ExitStatus::Negative,
            ExitStatus::Guests,
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
