//! A table whose rows have names of their own type, so that a vCPU's number cannot index the guests.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The name of a row: a small number.
pub(crate) trait Id: Copy {
    /// The name of row `index`.
    fn from_index(index: usize) -> Self;
    /// The number of the row.
    fn index(self) -> usize;
}

/// Rows of type `T`, named by `I`. Rows are only added.
#[derive(Clone, Debug)]
pub(crate) struct Table<I, T> {
    rows: Vec<T>,
    names: PhantomData<I>,
}

impl<I: Id, T> Table<I, T> {
    /// A table without rows.
    pub(crate) const fn new() -> Self {
        Self::from_rows(Vec::new())
    }

    /// A table of these rows.
    pub(crate) const fn from_rows(rows: Vec<T>) -> Self {
        Self {
            rows,
            names: PhantomData,
        }
    }

    /// Adds a row and returns its name.
    #[inline]
    pub(crate) fn push(&mut self, row: T) -> I {
        self.rows.push(row);
        I::from_index(self.rows.len() - 1)
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.rows.get_mut(id.index())
    }

    /// The names of all rows.
    #[inline]
    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.rows.len()).map(I::from_index)
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter()
    }

    #[inline]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut()
    }
}

impl<I: Id, T> Index<I> for Table<I, T> {
    type Output = T;

    #[inline]
    fn index(&self, id: I) -> &T {
        &self.rows[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Table<I, T> {
    #[inline]
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.rows[id.index()]
    }
}
