//! The numbers of commands, by which neither side takes an old answer for a new one.

/// Set in a futex word by the process that waits for it, when the peer is gone.
pub(crate) const GONE: u32 = 1 << 31;

/// The number of a command: 1, 2, … up to 2^31 - 1, then 1 again. 0 stands for the time before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandNumber(u32);

impl CommandNumber {
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(if self.0 == GONE - 1 { 1 } else { self.0 + 1 })
    }

    pub(crate) fn raw(self) -> u32 {
        self.0
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_has_number_0_or_the_bit_of_a_peer_that_is_gone() {
        assert_eq!(CommandNumber::default().next(), CommandNumber(1));
        assert_eq!(CommandNumber(GONE - 1).next(), CommandNumber(1));
    }
}
