//! A table whose rows have names of their own type, so that a vCPU's number cannot index the guests.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The name of a row: a small number.
pub(crate) trait Id: Copy {
    /// The name of row `index`.
    fn from_index(index: usize) -> Self;
    /// The number of the row.
    fn index(self) -> usize;
}

/// Rows of type `T`, named by `I`. The name of a row that is taken out is given to the next row that is added.
#[derive(Clone, Debug)]
pub(crate) struct Table<I, T> {
    rows: Vec<Option<T>>,
    /// The places in `rows` that have no row.
    free: BTreeSet<usize>,
    names: PhantomData<I>,
}

impl<I: Id, T> Table<I, T> {
    /// A table without rows.
    pub(crate) const fn new() -> Self {
        Self {
            rows: Vec::new(),
            free: BTreeSet::new(),
            names: PhantomData,
        }
    }

    /// A table of these rows.
    pub(crate) fn from_rows(rows: Vec<T>) -> Self {
        Self {
            rows: rows.into_iter().map(Some).collect(),
            ..Self::new()
        }
    }

    /// Adds a row and returns its name, which is the lowest that is free.
    #[inline]
    pub(crate) fn add(&mut self, row: T) -> I {
        let index = self.free.pop_first().unwrap_or(self.rows.len());
        if index == self.rows.len() {
            self.rows.push(Some(row));
        } else {
            self.rows[index] = Some(row);
        }
        I::from_index(index)
    }

    /// Takes the row `id` out. Its name is free.
    pub(crate) fn remove(&mut self, id: I) -> Option<T> {
        let row = self.rows.get_mut(id.index())?.take()?;
        self.free.insert(id.index());
        Some(row)
    }

    /// How many rows there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// One more than the largest number that a row has had: the most rows that there were at one time.
    #[inline]
    pub(crate) const fn places(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.rows.get_mut(id.index())?.as_mut()
    }

    /// The names of all rows.
    #[inline]
    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + use<'_, I, T> {
        let names = (0..).map(I::from_index).zip(&self.rows);
        names.filter_map(|(id, row)| row.is_some().then_some(id))
    }

    /// The names of all places, of which some may have no row: for loops that change the rows.
    #[inline]
    pub(crate) fn place_ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.rows.len()).map(I::from_index)
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().flatten()
    }

    #[inline]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut().flatten()
    }
}

impl<I: Id, T> Index<I> for Table<I, T> {
    type Output = T;

    #[inline]
    fn index(&self, id: I) -> &T {
        match &self.rows[id.index()] {
            Some(row) => row,
            None => missing(id.index()),
        }
    }
}

impl<I: Id, T> IndexMut<I> for Table<I, T> {
    #[inline]
    fn index_mut(&mut self, id: I) -> &mut T {
        match &mut self.rows[id.index()] {
            Some(row) => row,
            None => missing(id.index()),
        }
    }
}

#[cold]
fn missing(index: usize) -> ! {
    panic!("row {index} was taken out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VcpuId;

    #[test]
    fn a_name_is_given_again_only_after_its_row_was_taken_out() {
        let mut table = Table::new();
        let [a, b]: [VcpuId; 2] = ["a", "b"].map(|row| table.add(row));
        assert_eq!(table.remove(a), Some("a"));
        assert_eq!((table.remove(a), table.get(a)), (None, None));
        assert_eq!(table.ids().collect::<Vec<_>>(), [b]);
        assert_eq!((table.len(), table.places()), (1, 2));
        assert_eq!(table.add("c"), a);
        assert_eq!(table.add("d"), VcpuId(2));
    }
}
