//! What a vCPU measures and reports at its end.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::testdev::SECTIONS;
use crate::wait_buckets::{self, BUCKETS};

/// A count that only its own vCPU changes.
pub struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the count.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// A plain load and store: only this vCPU writes.
    #[inline(always)]
    pub fn add(&self, more: u64) {
        self.set(self.get() + more);
    }
}

/// A [`Count`] in half the memory, for counts that are many; it saturates.
#[repr(transparent)]
pub struct SmallCount(AtomicU32);

impl SmallCount {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[inline(always)]
    fn increment(&self) {
        self.0
            .store(self.0.load(Relaxed).saturating_add(1), Relaxed);
    }
}

/// The counts of a vCPU. Its tasks share them, so a task must not be preempted while it counts
/// ([`crate::preempt`]).
pub struct Stats {
    pub acquisitions: Count,
    pub wait_max_ns: Count,
    pub wait_sum_ns: Count,
    /// Waits by [`wait_buckets::bucket`]. The host reads them in place.
    pub waits: [SmallCount; BUCKETS],
    pub elapsed_ns: Count,
    pub iterations: Count,
    pub wait_rings: Count,
    pub release_rings: Count,
    pub skipped: Count,
    /// Times that a tick took a task off this vCPU for another one.
    pub task_preemptions: Count,
    /// TSC values at which the first critical sections were requested, entered and left; filled by
    /// [`Stats::log`].
    pub sections: [[Count; 3]; SECTIONS],
}

impl Stats {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            acquisitions: Count::new(),
            wait_max_ns: Count::new(),
            wait_sum_ns: Count::new(),
            waits: [const { SmallCount::new() }; BUCKETS],
            elapsed_ns: Count::new(),
            iterations: Count::new(),
            wait_rings: Count::new(),
            release_rings: Count::new(),
            skipped: Count::new(),
            task_preemptions: Count::new(),
            sections: [const { [const { Count::new() }; 3] }; SECTIONS],
        }
    }

    /// Records the times of the critical section that [`Stats::acquired`] counts next.
    #[cold]
    pub fn log(&self, times: [u64; 3]) {
        if let Some(section) = self.sections.get(self.acquisitions.get() as usize) {
            for (count, time) in section.iter().zip(times) {
                count.set(time);
            }
        }
    }

    /// Counts an acquisition and its wait.
    #[inline]
    pub fn acquired(&self, wait_ns: u64) {
        self.acquisitions.add(1);
        self.wait_sum_ns.add(wait_ns);
        self.wait_max_ns.set(self.wait_max_ns.get().max(wait_ns));
        self.waits[wait_buckets::bucket(wait_ns)].increment();
    }
}
