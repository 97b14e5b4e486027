//! What a benchmark measures, and how much of it.

use std::time::Duration;

use super::cell::Cell;
use super::matrix::Matrix;

/// The plan of a benchmark, from its flags.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cells to measure.
    pub matrix: Matrix,
    /// Number of rounds.
    pub runs: u32,
    /// Time for which vCPUs contend in a run.
    pub time: Duration,
    /// The host CPUs of the pool.
    pub host_cpus: Vec<usize>,
    /// Time for all runs together, if it is limited.
    pub limit: Option<Duration>,
}

impl Plan {
    /// All cells to run: those of the matrix, then the references that are not among them.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = self.matrix.cells();
        cells.extend(self.matrix.extra_references());
        cells
    }
}
