//! The runs of one cell, in all rounds.

use super::lock_run::{LockRun, RunOutcome};
use crate::report::stats::{Spread, per_second};

/// The runs of one cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellRuns {
    /// The runs that count.
    pub runs: Vec<LockRun>,
    /// Runs that were repeated because they were disturbed.
    pub repeated: u32,
    /// Set if the cell cannot be measured.
    pub exclusion: Option<Exclusion>,
}

/// The reason why a cell cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The reason, as a sentence.
    pub reason: String,
    /// Whether a run failed; otherwise this host cannot make the run.
    pub failed: bool,
}

impl CellRuns {
    /// Whether the cell has runs and was not excluded.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.exclusion.is_none() && !self.runs.is_empty()
    }

    /// The number of disturbed runs among those that count.
    #[must_use]
    pub fn disturbed(&self) -> u64 {
        self.runs.iter().filter(|run| run.is_disturbed()).count() as u64
    }

    /// Acquisitions per second of CPU time.
    #[must_use]
    pub fn acquisitions_per_cpu_second(&self) -> Spread {
        let runs = self.runs.iter();
        Spread::of(runs.map(|run| per_second(run.acquisitions, run.ran_ns)))
    }

    /// Returns the run, if one was measured; otherwise excludes the cell. A cell that could run before and
    /// now cannot lacks only this run.
    pub(super) fn take(&mut self, outcome: RunOutcome) -> Option<LockRun> {
        let (reason, failed) = match outcome {
            RunOutcome::Measured(run) => return Some(*run),
            RunOutcome::Unavailable(_) if !self.runs.is_empty() => return None,
            RunOutcome::Unavailable(reason) => (reason, false),
            RunOutcome::Failed(reason) => (reason, true),
            RunOutcome::Interrupted => return None,
        };
        self.exclusion = Some(Exclusion { reason, failed });
        None
    }

    /// Replaces the last run by its repetition, if that was less disturbed.
    pub(super) fn replace_last_if_calmer(&mut self, second: LockRun) {
        if let Some(last) = self.runs.last_mut()
            && second.others_per_mille <= last.others_per_mille
        {
            *last = second;
        }
    }
}
