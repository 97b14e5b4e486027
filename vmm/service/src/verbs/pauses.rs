//! How often a command looks whether what it waits for has come about: often at first, because most of it takes
//! milliseconds, and then ever less often.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(1);
/// The longest one.
const LONGEST: Duration = Duration::from_millis(50);

/// The pauses between looks.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// The next pause, which is at most a quarter of the time that has passed, but for the first ones.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause + pause / 4).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_time_that_has_passed_and_have_a_bound() {
        let mut pauses = Pauses::default();
        let mut passed = Duration::ZERO;
        for _ in 0..100 {
            let pause = pauses.next();
            assert!(pause <= FIRST + passed / 4 && pause <= LONGEST);
            passed += pause;
        }
        assert_eq!(pauses.next(), LONGEST);
    }
}
