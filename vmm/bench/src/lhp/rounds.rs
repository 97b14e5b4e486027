//! The order of runs. Each round runs every cell once, so that what drifts (other load, clock rates,
//! temperature) affects all cells alike. Every other round goes backwards, so that no cell is always first. A
//! run that other processes disturbed is repeated once, and the less disturbed of the two counts.

use std::time::Duration;

use super::cell_runs::CellRuns;
use super::lock_run::RunOutcome;

/// One run to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index of the cell.
    pub cell: usize,
    /// Number of the round, from 0.
    pub round: u32,
    /// Runs made, without repeats.
    pub done: u64,
    /// Runs to be made, without repeats.
    pub total: u64,
    /// Whether this is a repeat.
    pub again: bool,
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of cells.
    pub cells: usize,
    /// Planned number of rounds.
    pub rounds: u32,
    /// Time for all runs together. Rounds after the first, and repeats, that would exceed it are left out.
    pub limit: Option<Duration>,
}

/// The cells in the order of `round`.
#[must_use]
pub fn order(cells: usize, round: u32) -> Vec<usize> {
    if round.is_multiple_of(2) {
        (0..cells).collect()
    } else {
        (0..cells).rev().collect()
    }
}

/// Makes all runs by calling `run`; `clock` returns the time since the beginning. Also returns whether the
/// user interrupted the benchmark.
///
/// # Errors
/// The first error of `run`.
pub fn measure<E>(
    extent: Extent,
    clock: impl Fn() -> Duration,
    run: impl FnMut(Step) -> Result<RunOutcome, E>,
) -> Result<(Vec<CellRuns>, bool), E> {
    let mut rounds = Rounds {
        extent,
        clock,
        run,
        cells: vec![CellRuns::default(); extent.cells],
        made: 0,
    };
    let interrupted = rounds.make_all()?;
    Ok((rounds.cells, interrupted))
}

/// All rounds, under way.
struct Rounds<C, R> {
    extent: Extent,
    clock: C,
    run: R,
    cells: Vec<CellRuns>,
    /// Runs made, with repeats.
    made: u32,
}

impl<C: Fn() -> Duration, E, R: FnMut(Step) -> Result<RunOutcome, E>> Rounds<C, R> {
    /// Makes all runs; returns whether the user interrupted the benchmark.
    fn make_all(&mut self) -> Result<bool, E> {
        let total = self.extent.cells as u64 * u64::from(self.extent.rounds);
        let mut done = 0;
        for round in 0..self.extent.rounds {
            if round > 0 && !self.has_time_for(self.extent.cells as u64) {
                break;
            }
            for cell in order(self.extent.cells, round) {
                let step = Step {
                    cell,
                    round,
                    done,
                    total,
                    again: false,
                };
                done += 1;
                if self.cells[cell].exclusion.is_none() && self.step(step)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Makes the run of one cell in one round, and repeats it if it was disturbed and there is time; returns
    /// whether the user interrupted the benchmark.
    fn step(&mut self, mut step: Step) -> Result<bool, E> {
        let first = match self.run_once(step)? {
            RunOutcome::Interrupted => return Ok(true),
            outcome => self.cells[step.cell].take(outcome),
        };
        let Some(first) = first else {
            return Ok(false);
        };
        let is_disturbed = first.is_disturbed();
        self.cells[step.cell].runs.push(first);
        if !is_disturbed || !self.has_time_for(step.total - step.done) {
            return Ok(false);
        }
        step.again = true;
        let second = match self.run_once(step)? {
            RunOutcome::Interrupted => return Ok(true),
            outcome => self.cells[step.cell].take(outcome),
        };
        if let Some(second) = second {
            self.cells[step.cell].replace_last_if_calmer(second);
            self.cells[step.cell].repeated += 1;
        }
        Ok(false)
    }

    fn run_once(&mut self, step: Step) -> Result<RunOutcome, E> {
        self.made += 1;
        (self.run)(step)
    }

    /// Whether so many more runs of the mean length so far end within the limit.
    fn has_time_for(&self, runs: u64) -> bool {
        let Some(limit) = self.extent.limit else {
            return true;
        };
        let runs = u32::try_from(runs).unwrap_or(u32::MAX);
        let elapsed = (self.clock)();
        let needed = (elapsed / self.made.max(1)).saturating_mul(runs);
        elapsed.saturating_add(needed) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::lock_run::LockRun;
    use std::cell::{Cell, RefCell};

    fn extent(cells: usize, rounds: u32) -> Extent {
        Extent {
            cells,
            rounds,
            limit: None,
        }
    }

    fn measured(acquisitions: u64, others_per_mille: u32) -> RunOutcome {
        RunOutcome::Measured(Box::new(LockRun {
            acquisitions,
            others_per_mille: Some(others_per_mille),
            ..LockRun::default()
        }))
    }

    fn no_time() -> Duration {
        Duration::ZERO
    }

    /// Runs `extent`; `outcome` gets the step and how many runs came before.
    fn all(
        extent: Extent,
        outcome: impl Fn(Step, usize) -> RunOutcome,
    ) -> (Vec<CellRuns>, bool, Vec<Step>) {
        let steps = RefCell::new(Vec::new());
        let result = measure(extent, no_time, |step| {
            let before = steps.borrow().len();
            steps.borrow_mut().push(step);
            Ok::<_, ()>(outcome(step, before))
        });
        let (kept, interrupted) = result.expect("no errors");
        (kept, interrupted, steps.into_inner())
    }

    #[test]
    fn every_other_round_goes_backwards() {
        let (kept, interrupted, steps) = all(extent(3, 3), |_, _| measured(1, 0));
        let cells: Vec<usize> = steps.iter().map(|step| step.cell).collect();
        assert_eq!(cells, [0, 1, 2, 2, 1, 0, 0, 1, 2]);
        assert_eq!((steps[8].done, steps[8].total, steps[8].round), (8, 9, 2));
        assert!(kept.iter().all(|k| k.runs.len() == 3 && k.repeated == 0));
        assert!(!interrupted);
    }

    #[test]
    fn disturbed_run_is_repeated_once_and_the_calmer_one_counts() {
        let (kept, _, steps) = all(extent(2, 1), |step, _| match (step.cell, step.again) {
            (0, false) => measured(1, 500),
            (0, true) => measured(2, 400),
            (1, false) => measured(3, 300),
            _ => measured(4, 600),
        });
        assert_eq!(steps.len(), 4);
        assert_eq!(kept[0].runs[0].acquisitions, 2);
        assert_eq!(kept[1].runs[0].acquisitions, 3);
        assert_eq!((kept[0].runs.len(), kept[0].repeated), (1, 1));
    }

    #[test]
    fn cell_that_cannot_run_is_not_tried_again() {
        let (kept, _, steps) = all(extent(2, 3), |step, _| match step.cell {
            0 => RunOutcome::Unavailable("not here".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!(steps.iter().filter(|step| step.cell == 0).count(), 1);
        let exclusion = kept[0].exclusion.as_ref().expect("excluded");
        assert_eq!(
            (exclusion.reason.as_str(), exclusion.failed),
            ("not here", false)
        );
        assert_eq!(kept[1].runs.len(), 3);
    }

    #[test]
    fn cell_that_could_run_before_only_misses_a_run() {
        let (kept, _, _) = all(extent(1, 3), |step, _| match step.round {
            1 => RunOutcome::Unavailable("busy".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!((kept[0].runs.len(), &kept[0].exclusion), (2, &None));
    }

    #[test]
    fn failure_excludes_even_what_ran_before() {
        let (kept, _, steps) = all(extent(1, 3), |step, _| match step.round {
            1 => RunOutcome::Failed("wrong".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!(steps.len(), 2);
        assert!(kept[0].exclusion.as_ref().is_some_and(|e| e.failed));
    }

    #[test]
    fn interruption_keeps_what_there_is() {
        let (kept, interrupted, _) = all(extent(2, 3), |_, before| match before {
            3 => RunOutcome::Interrupted,
            _ => measured(1, 0),
        });
        assert!(interrupted);
        assert_eq!((kept[0].runs.len(), kept[1].runs.len()), (1, 2));
    }

    #[test]
    fn rounds_and_repeats_that_would_not_end_in_time_are_left_out() {
        let time = Cell::new(Duration::ZERO);
        let limited = Extent {
            cells: 4,
            rounds: 5,
            limit: Some(Duration::from_secs(10)),
        };
        let mut runs = 0;
        let result = measure(
            limited,
            || time.get(),
            |_| {
                runs += 1;
                time.set(time.get() + Duration::from_secs(1));
                Ok::<_, ()>(measured(1, 999))
            },
        );
        let (kept, _) = result.expect("no errors");
        assert_eq!(runs, 8);
        assert!(kept.iter().all(|k| k.runs.len() == 2 && k.repeated == 0));
    }
}
