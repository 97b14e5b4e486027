//! How many messages a guest's process may send.

use vcpu_sched::Ns;

/// Messages that may come at once.
pub const BURST: u32 = 32;
/// Time after which another message may come, ns.
pub const REFILL_NS: Ns = 20_000_000;

/// A token bucket for one connection.
#[derive(Debug)]
pub struct RateLimit {
    tokens: u32,
    /// When the last token was added, ns.
    filled_at: Ns,
}

impl RateLimit {
    /// A full bucket at the time `now`, ns.
    #[must_use]
    pub fn new(now: Ns) -> Self {
        Self {
            tokens: BURST,
            filled_at: now,
        }
    }

    /// Whether a message may come at the time `now`, ns.
    #[must_use]
    pub fn take(&mut self, now: Ns) -> bool {
        let added = now.saturating_sub(self.filled_at) / REFILL_NS;
        self.filled_at += added * REFILL_NS;
        let tokens = u64::from(self.tokens).saturating_add(added);
        self.tokens = tokens.min(u64::from(BURST)) as u32;
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_message_each_time_that_a_token_is_added() {
        let mut limit = RateLimit::new(5);
        assert!((0..BURST).all(|_| limit.take(5)));
        assert!(!limit.take(5 + REFILL_NS - 1));
        assert!(limit.take(5 + REFILL_NS) && !limit.take(5 + REFILL_NS));
        assert!((0..BURST).all(|_| limit.take(u64::MAX)) && !limit.take(u64::MAX));
    }

    #[test]
    fn a_clock_that_goes_back_adds_nothing() {
        let mut limit = RateLimit::new(100 * REFILL_NS);
        assert!((0..BURST).all(|_| limit.take(0)));
        assert!(!limit.take(0));
    }
}
