//! Whether a vCPU's statement that it holds a lock is believed: the bound on how much a guest gains by
//! false statements.

use crate::normal_form::{Normalise, Writer};

/// The most preemptions that pass without a deferral after deferrals that ran out.
const MAX_DENIALS: u32 = 1024;

/// What a deferral is granted on. Its outcome counts for the credit of the same grounds, whatever the vCPU's hints are
/// when it ends: one that alternated between the two would otherwise never pay for a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grounds {
    /// What the vCPU has published.
    Published,
    /// What the host has inferred.
    Guess,
}

/// Whether a vCPU's next deferral is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeferralCredit {
    /// Denials still to come.
    denials_left: u32,
    /// Denials after the next deferral that runs out.
    penalty: u32,
}

impl DeferralCredit {
    /// Requests a deferral. True if it is granted; a denial is used up otherwise.
    pub(crate) fn request(&mut self) -> bool {
        let granted = self.denials_left == 0;
        self.denials_left = self.denials_left.saturating_sub(1);
        granted
    }

    /// The deferral ran out without a release.
    pub(crate) fn expired(&mut self) {
        self.penalty = (self.penalty * 2).clamp(1, MAX_DENIALS);
        self.denials_left = self.penalty;
    }

    /// The vCPU released its locks within the deferral.
    pub(crate) fn kept(&mut self) {
        self.penalty = 0;
    }
}

impl Normalise for DeferralCredit {
    fn normalise(&self, to: &mut Writer) {
        let &Self {
            denials_left,
            penalty,
        } = self;
        to.number(denials_left);
        to.number(penalty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deferrals_that_run_out_are_granted_ever_more_rarely() {
        let mut credit = DeferralCredit::default();
        let mut granted = Vec::new();
        for request in 0..40 {
            if credit.request() {
                granted.push(request);
                credit.expired();
            }
        }
        assert_eq!(granted, [0, 2, 5, 10, 19, 36]);
    }

    #[test]
    fn a_kept_word_restores_trust() {
        let mut credit = DeferralCredit::default();
        credit.expired();
        credit.expired();
        while !credit.request() {}
        credit.kept();
        credit.expired();
        let mut granted = [false; 2].map(|_| credit.request());
        assert_eq!(granted, [false, true], "as after the first broken word");
        credit.expired();
        granted = [false; 2].map(|_| credit.request());
        assert_eq!(granted, [false, false]);
    }
}
