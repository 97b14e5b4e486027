//! A binary min-heap of small indices that finds any member in constant time, so that a member can leave
//! the middle of the heap in O(log n). Memory is allocated by [`Heap::grow`] alone, never while
//! scheduling.

/// Marks an index that is not in the heap.
const ABSENT: u32 = u32::MAX;

/// A min-heap of indices `0..capacity`, each with a key.
#[derive(Clone, Debug)]
pub(crate) struct Heap<K> {
    /// The heap order: `items[i]` is not greater than `items[2i + 1]` and `items[2i + 2]`.
    items: Vec<(K, u32)>,
    /// The place of each index in `items`, or [`ABSENT`].
    place: Vec<u32>,
}

impl<K: Ord + Copy> Heap<K> {
    pub(crate) const fn new() -> Self {
        Self {
            items: Vec::new(),
            place: Vec::new(),
        }
    }

    /// Makes room for the indices `0..capacity`.
    pub(crate) fn grow(&mut self, capacity: usize) {
        if capacity > self.place.len() {
            self.place.resize(capacity, ABSENT);
            self.items.reserve(capacity - self.items.len());
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The smallest key and its index.
    pub(crate) fn first(&self) -> Option<(K, u32)> {
        self.items.first().copied()
    }

    /// The smallest key below `limit` of a member for which `wanted` holds. Visits the members with smaller
    /// keys, which are the top of the heap, and their children.
    pub(crate) fn first_where(&self, limit: K, wanted: impl Fn(u32, K) -> bool) -> Option<K> {
        let mut best: Option<K> = None;
        self.search(0, limit, &wanted, &mut best);
        best
    }

    fn search(&self, at: usize, limit: K, wanted: &impl Fn(u32, K) -> bool, best: &mut Option<K>) {
        let Some(&(key, index)) = self.items.get(at) else {
            return;
        };
        if key >= best.unwrap_or(limit) {
            return;
        }
        if wanted(index, key) {
            *best = Some(key);
            return;
        }
        self.search(2 * at + 1, limit, wanted, best);
        self.search(2 * at + 2, limit, wanted, best);
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.place
            .get(index as usize)
            .is_some_and(|&place| place != ABSENT)
    }

    /// The key of `index`, if it is in the heap.
    pub(crate) fn key(&self, index: u32) -> Option<K> {
        let place = self.place.get(index as usize)?;
        self.items.get(*place as usize).map(|&(key, _)| key)
    }

    /// Puts `index` into the heap, or gives it a new key.
    pub(crate) fn set(&mut self, index: u32, key: K) {
        debug_assert!(
            (index as usize) < self.place.len(),
            "heap grown for every index"
        );
        let place = self.place[index as usize];
        if place == ABSENT {
            self.items.push((key, index));
            let last = self.items.len() - 1;
            self.place[index as usize] = last as u32;
            self.up(last);
        } else {
            let place = place as usize;
            self.items[place].0 = key;
            self.up(place);
            self.down(self.place[index as usize] as usize);
        }
    }

    /// Takes `index` out. False if it was not in the heap.
    pub(crate) fn remove(&mut self, index: u32) -> bool {
        if !self.contains(index) {
            return false;
        }
        let place = self.place[index as usize] as usize;
        let last = self.items.len() - 1;
        self.swap(place, last);
        self.items.pop();
        self.place[index as usize] = ABSENT;
        if place < last {
            let moved = self.items[place].1;
            self.up(place);
            self.down(self.place[moved as usize] as usize);
        }
        true
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.items.swap(a, b);
        self.place[self.items[a].1 as usize] = a as u32;
        self.place[self.items[b].1 as usize] = b as u32;
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.items[parent].0 <= self.items[at].0 {
                break;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.items.len() {
                break;
            }
            let right = left + 1;
            let least = if right < self.items.len() && self.items[right].0 < self.items[left].0 {
                right
            } else {
                left
            };
            if self.items[at].0 <= self.items[least].0 {
                break;
            }
            self.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_leave_in_key_order_whatever_was_removed_or_rekeyed_between() {
        let mut heap = Heap::new();
        heap.grow(64);
        for i in 0..64u32 {
            heap.set(i, (i * 37) % 64);
        }
        for i in (0..64).step_by(3) {
            assert!(heap.remove(i));
            assert!(!heap.remove(i), "a second removal finds nothing");
        }
        for i in (1..64).step_by(3) {
            heap.set(i, (i * 11) % 64);
        }
        let mut last = 0;
        let mut left = heap.len();
        while let Some((key, index)) = heap.first() {
            assert!(key >= last);
            last = key;
            assert!(heap.remove(index));
            left -= 1;
            assert_eq!(heap.len(), left);
        }
        assert_eq!(left, 0);
    }
}
