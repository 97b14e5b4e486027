//! A set of a device's queues.

/// A set of queues, by index. A device has at most 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueSet(u32);

impl QueueSet {
    /// All queues.
    pub(super) const ALL: Self = Self(u32::MAX);

    /// Only queue `index`. An index for which there is no bit gives all queues: to revoke too much is safe.
    pub(super) fn only(index: usize) -> Self {
        u32::try_from(index)
            .ok()
            .and_then(|index| 1u32.checked_shl(index))
            .map_or(Self::ALL, Self)
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether queue `index` is in the set.
    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & Self::only(index).0 != 0
    }

    pub(super) fn insert(&mut self, index: usize) {
        self.0 |= Self::only(index).0;
    }

    /// Removes queue `index`. Returns whether it was in the set.
    pub(super) fn remove(&mut self, index: usize) -> bool {
        let contained = self.contains(index);
        self.0 &= !Self::only(index).0;
        contained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_in_the_set_from_its_insertion_to_its_removal() {
        let mut set = QueueSet::default();
        assert!(!set.contains(31));
        set.insert(31);
        set.insert(0);
        assert!(set.contains(31) && set.contains(0) && !set.contains(1));
        assert!(set.remove(31) && !set.remove(31));
        assert_eq!(set, QueueSet::only(0));
    }

    #[test]
    fn an_index_beyond_the_last_bit_stands_for_all_queues() {
        assert_eq!(QueueSet::only(32), QueueSet::ALL);
        assert_eq!(QueueSet::only(usize::MAX), QueueSet::ALL);
    }
}
