//! The matrix of all cells.

use super::axes::{Load, Lock, Policy};
use super::cell::Cell;

/// The cells to measure, by their axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The locks.
    pub locks: Vec<Lock>,
    /// The loads.
    pub loads: Vec<Load>,
    /// The policies.
    pub policies: Vec<Policy>,
}

impl Matrix {
    /// All cells; those that are compared with each other are side by side.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &load in &self.loads {
            for &lock in &self.locks {
                let cell = |&policy| Cell { lock, load, policy };
                cells.extend(self.policies.iter().map(cell));
            }
        }
        cells
    }

    /// The references that are not cells of the matrix.
    #[must_use]
    pub fn extra_references(&self) -> Vec<Cell> {
        let cells = self.cells();
        let references = self.locks.iter().copied().map(Cell::reference_of);
        references
            .filter(|reference| !cells.contains(reference))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_measured_whatever_the_flags_name() {
        let mut matrix = Matrix {
            locks: vec![Lock::Tas, Lock::Mcs],
            loads: vec![Load::X4],
            policies: vec![Policy::HostSpin, Policy::Baton],
        };
        assert_eq!(matrix.cells().len(), 4);
        assert_eq!(
            matrix.extra_references(),
            [Cell::reference_of(Lock::Tas), Cell::reference_of(Lock::Mcs)]
        );
        matrix.loads.push(Load::X1);
        assert_eq!(matrix.extra_references(), []);
    }
}
