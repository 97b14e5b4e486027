//! What a guest has printed, how much of that is lost, and what the writing has cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one guest has printed, and at what cost.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// CPU time that the console's thread has used for this guest since [`Account::take_cpu_ns`], ns.
    cpu_ns: AtomicU64,
    /// Bytes that the guest has printed.
    printed: AtomicU64,
    /// How many of them have been written.
    written: AtomicU64,
}

impl Account {
    pub(super) fn add_printed(&self, bytes: u64) {
        self.printed.fetch_add(bytes, Ordering::Release);
    }

    pub(super) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Release);
    }

    /// Charges the guest `ns` of CPU time.
    pub(super) fn charge(&self, ns: u64) {
        self.cpu_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn take_cpu_ns(&self) -> u64 {
        match self.cpu_ns.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.cpu_ns.swap(0, Ordering::Relaxed),
        }
    }
}

/// Divides `ns` of CPU time by the number of bytes among the accounts for which they were written.
pub(super) fn charge(ns: u64, written: impl Iterator<Item = (usize, Arc<Account>)>) {
    let written: Vec<_> = written.collect();
    let bytes: u64 = written.iter().map(|(bytes, _)| *bytes as u64).sum();
    for (own, account) in written {
        let part = u128::from(ns) * own as u128 / u128::from(bytes.max(1));
        account.charge(part as u64);
    }
}

/// How much of what a guest printed is lost.
#[derive(Clone, Debug)]
pub struct ConsoleCount(pub(super) Arc<Account>);

impl ConsoleCount {
    /// Bytes that have not been written. When the console has ended, these are lost.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        // In this order: bytes that are printed meanwhile must not count as written before.
        let written = self.0.written.load(Ordering::Acquire);
        let printed = self.0.printed.load(Ordering::Acquire);
        printed.saturating_sub(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_writing_is_divided_by_the_byte() {
        let [much, little] = [(); 2].map(|()| Arc::new(Account::default()));
        let written = [(300, Arc::clone(&much)), (100, Arc::clone(&little))];
        charge(1_000, written.into_iter());
        assert_eq!(
            [much, little].map(|account| account.take_cpu_ns()),
            [750, 250]
        );
    }
}
