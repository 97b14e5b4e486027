//! Whether the pool works. It shows that by a number that changes about once a second, whether or not it has commands for
//! this guest: a guest that waits because others have higher claims is no reason to leave the pool.
//!
//! Only checks are counted, not the time between them, because this process may itself be stopped for a while.

use std::time::Duration;

/// Time between two checks.
pub(super) const BEAT_CHECK: Duration = Duration::from_secs(1);
/// The pool has hung if so many checks in a row have found the same number.
pub(super) const HUNG_CHECKS: u32 = 5;

/// What the checks have found.
#[derive(Debug, Default)]
pub(super) struct BeatWatch {
    last: u32,
    same: u32,
}

impl BeatWatch {
    /// Whether the pool, whose number is `beats` now, has hung. A pool whose number is 0 does not show that.
    pub(super) fn has_hung(&mut self, beats: u32) -> bool {
        let before = std::mem::replace(&mut self.last, beats);
        self.same = match before == beats && beats != 0 {
            true => self.same + 1,
            false => 0,
        };
        self.same >= HUNG_CHECKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_hung_when_some_checks_in_a_row_have_found_the_same_number() {
        let mut watch = BeatWatch::default();
        assert!(
            (0..100).all(|_| !watch.has_hung(0)),
            "it does not show that"
        );
        for beats in 1..100 {
            assert!((1..HUNG_CHECKS).all(|_| !watch.has_hung(beats)));
        }
        assert!((0..HUNG_CHECKS).all(|_| !watch.has_hung(7)));
        assert!(watch.has_hung(7) && watch.has_hung(7) && !watch.has_hung(8));
    }
}
