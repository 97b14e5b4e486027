//! Whether it pays to act on the host's guesses about a vCPU.
//!
//! A guess may be wrong at any time, so a single failure says little. Acting on guesses is withdrawn when
//! fewer than half of them pay, and is tried again after a number of requests that doubles as long as it
//! fails. So a guest whose work changes is noticed.

use crate::normal_form::{Normalise, Writer};

/// So many more failures than successes are tolerated.
const TOLERATED: u32 = 6;
/// The most requests that are denied before it is tried again.
const MAX_DENIALS: u32 = 64;

/// The yield of the guesses about one vCPU, for one purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuessCredit {
    /// Failures less successes, at least 0 and at most [`TOLERATED`].
    failures: u32,
    /// Denials still to come.
    denials_left: u32,
    /// Denials after the last failure.
    penalty: u32,
}

impl GuessCredit {
    /// Requests to act on a guess. True if that is granted; a denial is used up otherwise.
    pub(crate) fn request(&mut self) -> bool {
        let granted = self.denials_left == 0;
        self.denials_left = self.denials_left.saturating_sub(1);
        granted
    }

    /// Whether acting on guesses is withdrawn at present.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.denials_left > 0
    }

    /// Acting on a guess has paid.
    pub(crate) fn paid(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        self.penalty = 0;
    }

    /// Acting on a guess has led to nothing.
    pub(crate) fn failed(&mut self) {
        if self.failures < TOLERATED {
            self.failures += 1;
            return;
        }
        self.penalty = (self.penalty * 2).clamp(1, MAX_DENIALS);
        self.denials_left = self.penalty;
    }
}

impl Normalise for GuessCredit {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            failures,
            denials_left,
            penalty,
        } = self;
        to.number(failures);
        to.number(denials_left);
        to.number(penalty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests are granted, if `pays` decides of each one that is.
    fn granted(credit: &mut GuessCredit, requests: u32, mut pays: impl FnMut(u32) -> bool) -> u32 {
        let mut granted = 0;
        for _ in 0..requests {
            if credit.request() {
                match pays(granted) {
                    true => credit.paid(),
                    false => credit.failed(),
                }
                granted += 1;
            }
        }
        granted
    }

    #[test]
    fn guesses_that_pay_every_second_time_are_always_acted_on() {
        let count = granted(&mut GuessCredit::default(), 1_000, |n| n % 2 == 0);
        assert_eq!(count, 1_000);
    }

    #[test]
    fn guesses_that_never_pay_are_hardly_acted_on() {
        let count = granted(&mut GuessCredit::default(), 10_000, |_| false);
        assert!(count < 10_000 / 60, "{count}");
    }

    #[test]
    fn guesses_that_pay_again_are_acted_on_again() {
        let mut credit = GuessCredit::default();
        granted(&mut credit, 10_000, |_| false);
        let count = granted(&mut credit, 1_000, |_| true);
        assert!(count >= 1_000 - MAX_DENIALS, "{count}");
    }
}
