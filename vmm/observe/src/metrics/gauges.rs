//! What an executor counts by itself, outside the pool's lock. Only its own thread writes, so plain stores are
//! enough. A reader may get numbers of slightly different moments, each of which was right then.

use std::sync::atomic::{AtomicU64, Ordering};

use vcpu_sched::Ns;

use crate::exit_kind::ExitKind;

/// The counters of one executor, which counts by them.
#[derive(Debug, Default)]
pub struct ExecutorGauges {
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    host_steal_ns: AtomicU64,
    decisions: AtomicU64,
    exits: [AtomicU64; ExitKind::ALL.len()],
}

/// The counts of one executor at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorCounts {
    /// CPU time spent on guests, ns.
    pub busy_ns: u64,
    /// Time asleep for want of work, ns.
    pub idle_ns: u64,
    /// Time that the host took for other things, ns.
    pub host_steal_ns: u64,
    /// Decisions of the policy.
    pub decisions: u64,
    /// Exits by kind.
    pub exits: [u64; ExitKind::ALL.len()],
}

impl ExecutorGauges {
    /// Accounts for all time until now. The part of `wall_ns` that is neither `busy_ns` nor `idle_ns` was taken by
    /// the host.
    pub fn account(&self, wall_ns: Ns, busy_ns: Ns, idle_ns: Ns, decisions: u64) {
        let stolen = wall_ns.saturating_sub(busy_ns).saturating_sub(idle_ns);
        // The two clocks differ by less than a microsecond, and a counter must not go back.
        let stolen = stolen.max(self.host_steal_ns.load(Ordering::Relaxed));
        self.busy_ns.store(busy_ns, Ordering::Relaxed);
        self.idle_ns.store(idle_ns, Ordering::Relaxed);
        self.host_steal_ns.store(stolen, Ordering::Relaxed);
        self.decisions.store(decisions, Ordering::Relaxed);
    }

    /// Counts one exit.
    pub fn exit(&self, kind: ExitKind) {
        let count = &self.exits[kind as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn read(&self) -> ExecutorCounts {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        ExecutorCounts {
            busy_ns: read(&self.busy_ns),
            idle_ns: read(&self.idle_ns),
            host_steal_ns: read(&self.host_steal_ns),
            decisions: read(&self.decisions),
            exits: self.exits.each_ref().map(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_busy_nor_idle_was_stolen_and_never_goes_back() {
        let gauges = ExecutorGauges::default();
        gauges.account(100, 60, 30, 1);
        gauges.account(110, 75, 30, 2);
        gauges.exit(ExitKind::Doorbell);
        let counts = gauges.read();
        assert_eq!(
            (counts.busy_ns, counts.idle_ns, counts.host_steal_ns),
            (75, 30, 10)
        );
        assert_eq!((counts.decisions, counts.exits), (2, [0, 0, 1, 0, 0, 0]));
    }
}
