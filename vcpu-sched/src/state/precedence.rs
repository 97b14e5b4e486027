//! How many suspects of its guest run before a vCPU that waits for none.

use crate::normal_form::{Normalise, Writer};
use crate::state::guess_credit::GuessCredit;

/// The vCPU itself runs once so many suspects in a row have released nothing, or [`TRIES`] for each other vCPU of its
/// guest: of those that queue, only the first can.
const MAX_FRUITLESS: u32 = 12;
const TRIES: u32 = 4;
/// The most suspects that run in a row, whether they release anything or not.
const MAX_IN_ROW: u32 = 96;

/// What a vCPU that holds nothing gives to the suspects of its guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Precedence {
    /// Suspects that have run before it in a row.
    in_row: u32,
    /// How many of them have run since one released something.
    fruitless: u32,
    credit: GuessCredit,
}

impl Precedence {
    /// Whether one more suspect runs before it, whose guest has `siblings` other vCPUs.
    pub(crate) fn request(&mut self, siblings: usize) -> bool {
        if self.in_row == 0 && !self.credit.request() {
            return false;
        }
        let siblings = u32::try_from(siblings).unwrap_or(MAX_IN_ROW);
        let most = siblings.saturating_mul(TRIES).max(MAX_FRUITLESS);
        if self.fruitless >= most || self.in_row == MAX_IN_ROW {
            (self.in_row, self.fruitless) = (0, 0);
            self.credit.failed();
            return false;
        }
        self.in_row += 1;
        self.fruitless += 1;
        true
    }

    /// A suspect that ran before it has released what it held.
    pub(crate) fn suspect_released(&mut self) {
        self.fruitless = 0;
    }

    /// No suspect is left.
    pub(crate) fn done(&mut self) {
        self.fruitless = 0;
        if std::mem::take(&mut self.in_row) > 0 {
            self.credit.paid();
        }
    }
}

impl Normalise for Precedence {
    fn normalise(&self, to: &mut Writer) {
        let Self {
            in_row,
            fruitless,
            credit,
        } = self;
        to.number(*in_row);
        to.number(*fruitless);
        to.part(credit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_suspects_run_in_a_row_and_no_more() {
        let mut precedence = Precedence::default();
        let count = (0..).take_while(|_| precedence.request(1)).count();
        assert_eq!(count as u32, MAX_FRUITLESS);

        let mut precedence = Precedence::default();
        let count = (0..).take_while(|_| precedence.request(7)).count();
        assert_eq!(count as u32, 7 * TRIES);

        let mut precedence = Precedence::default();
        let releases = (0..).take_while(|_| {
            precedence.suspect_released();
            precedence.request(1)
        });
        assert_eq!(releases.count() as u32, MAX_IN_ROW);
    }

    #[test]
    fn suspects_that_never_come_to_an_end_lose_their_precedence() {
        let mut precedence = Precedence::default();
        let requests = 100_000;
        let granted = (0..requests).filter(|_| precedence.request(1)).count();
        assert!(granted < requests / 2, "{granted}");
    }

    #[test]
    fn suspects_that_come_to_an_end_keep_their_precedence() {
        let mut precedence = Precedence::default();
        for _ in 0..1_000 {
            assert!(precedence.request(1) && precedence.request(1));
            precedence.done();
        }
    }
}
