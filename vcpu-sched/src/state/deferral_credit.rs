//! How far a vCPU is trusted that asks for a deferral.

/// The most preemptions that pass without a grace after graces that ran out.
const MAX_DENIALS: u32 = 1024;

/// How far a vCPU's word about its locks is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Denials still to come.
    denials_left: u32,
    /// Denials after the next grace that runs out.
    penalty: u32,
}

impl Credit {
    pub(crate) fn ask(&mut self) -> bool {
        let granted = self.denials_left == 0;
        self.denials_left = self.denials_left.saturating_sub(1);
        granted
    }

    pub(crate) fn expired(&mut self) {
        self.penalty = (self.penalty * 2).clamp(1, MAX_DENIALS);
        self.denials_left = self.penalty;
    }

    pub(crate) fn kept(&mut self) {
        self.penalty = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_that_run_out_are_given_ever_more_rarely() {
        let mut credit = Credit::default();
        let mut granted = Vec::new();
        for ask in 0..40 {
            if credit.ask() {
                granted.push(ask);
                credit.expired();
            }
        }
        assert_eq!(granted, [0, 2, 5, 10, 19, 36]);
    }

    #[test]
    fn a_kept_word_restores_trust() {
        let mut credit = Credit::default();
        credit.expired();
        credit.expired();
        while !credit.ask() {}
        credit.kept();
        credit.expired();
        let mut granted = [false; 2].map(|_| credit.ask());
        assert_eq!(granted, [false, true], "as after the first broken word");
        credit.expired();
        granted = [false; 2].map(|_| credit.ask());
        assert_eq!(granted, [false, false]);
    }
}
