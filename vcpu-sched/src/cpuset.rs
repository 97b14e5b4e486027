//! Sets of host CPUs of a pool, as a pair of machine words: a pool has at most 128 CPUs.

use crate::ids::CpuId;

/// The most host CPUs that one pool can have.
pub const MAX_CPUS: usize = 128;

/// A set of host CPUs of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CpuSet(u128);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);

    /// CPUs 0 to `n` - 1; all 128 for a larger `n`.
    #[must_use]
    pub const fn first(n: usize) -> Self {
        if n >= MAX_CPUS {
            Self(u128::MAX)
        } else {
            Self((1 << n) - 1)
        }
    }

    /// Only this CPU; the empty set for a number that no pool can have.
    #[must_use]
    pub const fn only(cpu: CpuId) -> Self {
        if cpu.index() >= MAX_CPUS {
            Self::EMPTY
        } else {
            Self(1 << cpu.index())
        }
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub const fn contains(self, cpu: CpuId) -> bool {
        cpu.index() < MAX_CPUS && self.0 >> cpu.index() & 1 == 1
    }

    /// Puts `cpu` into the set.
    pub const fn insert(&mut self, cpu: CpuId) {
        self.0 |= Self::only(cpu).0;
    }

    /// Takes `cpu` out of the set.
    pub const fn remove(&mut self, cpu: CpuId) {
        self.0 &= !Self::only(cpu).0;
    }

    /// The CPUs that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The CPUs that are in this set and not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every CPU of this set is in `other`.
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of CPUs in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The CPU with the lowest number.
    #[must_use]
    pub const fn lowest(self) -> Option<CpuId> {
        if self.0 == 0 {
            None
        } else {
            Some(CpuId(self.0.trailing_zeros()))
        }
    }

    /// The CPUs of the set, in rising order.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let cpu = rest.lowest()?;
            rest.remove(cpu);
            Some(cpu)
        })
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut set = Self::EMPTY;
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_iterates_in_rising_order_up_to_the_last_cpu() {
        let set: CpuSet = [127, 0, 64].into_iter().map(CpuId).collect();
        assert_eq!(set.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 64, 127]);
        assert_eq!(set.len(), 3);
        assert!(set.is_subset(CpuSet::first(128)) && !set.is_subset(CpuSet::first(127)));
    }

    #[test]
    fn a_cpu_beyond_the_limit_is_in_no_set() {
        let mut set = CpuSet::first(500);
        set.insert(CpuId(128));
        assert!(!set.contains(CpuId(128)) && set.contains(CpuId(127)));
    }
}
