//! The order of runs. All cells are run once per round, so that what drifts (other load, clock
//! rates, temperature) touches all of them alike; every other round goes backwards, so that none is
//! always first. A run that others disturbed is repeated once, and the less disturbed of the two
//! counts.

use std::time::Duration;

use super::cell_run::{Outcome, Run};

/// What there is of a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The runs that count.
    pub runs: Vec<Run>,
    /// Runs that were repeated because they were disturbed.
    pub repeated: u32,
    /// Why the cell counts no more.
    pub excluded: Option<Excluded>,
}

/// Why a cell counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// A sentence.
    pub reason: String,
    /// Whether something is wrong, rather than this host not able.
    pub failed: bool,
}

/// One run to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index of the cell.
    pub cell: usize,
    /// Which round, from 0.
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
    /// Rounds that are wanted.
    pub rounds: u32,
    /// Rounds after the first, and repeats, are left out if they would take longer than this in
    /// all.
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

/// Makes all runs by calling `run`; `clock` tells the time since the beginning. Also returns whether
/// the user interrupted it.
///
/// # Errors
/// The first one of `run`.
pub fn measure<E>(
    extent: Extent,
    clock: impl Fn() -> Duration,
    mut run: impl FnMut(Step) -> Result<Outcome, E>,
) -> Result<(Vec<Kept>, bool), E> {
    let mut kept = vec![Kept::default(); extent.cells];
    let total = extent.cells as u64 * u64::from(extent.rounds);
    let mut done = 0;
    let mut made = 0u32;
    for round in 0..extent.rounds {
        let pace = Pace {
            limit: extent.limit,
            elapsed: clock(),
            made,
        };
        if round > 0 && !pace.has_time_for(extent.cells as u64) {
            break;
        }
        for cell in order(extent.cells, round) {
            let mut step = Step {
                cell,
                round,
                done,
                total,
                again: false,
            };
            done += 1;
            if kept[cell].excluded.is_some() {
                continue;
            }
            made += 1;
            match run(step)? {
                Outcome::Interrupted => return Ok((kept, true)),
                outcome => {
                    let Some(first) = kept[cell].take(outcome) else {
                        continue;
                    };
                    kept[cell].runs.push(first);
                }
            }
            let pace = Pace {
                limit: extent.limit,
                elapsed: clock(),
                made,
            };
            let disturbed = kept[cell].runs.last().is_some_and(Run::is_disturbed);
            if disturbed && pace.has_time_for(total - done + 1) {
                step.again = true;
                made += 1;
                match run(step)? {
                    Outcome::Interrupted => return Ok((kept, true)),
                    outcome => {
                        let Some(second) = kept[cell].take(outcome) else {
                            continue;
                        };
                        kept[cell].replace_last_if_calmer(second);
                    }
                }
                kept[cell].repeated += 1;
            }
        }
    }
    Ok((kept, false))
}

impl Kept {
    /// The run, if one was measured; otherwise notes why not. What could run before, and now cannot,
    /// only misses this run.
    fn take(&mut self, outcome: Outcome) -> Option<Run> {
        let (reason, failed) = match outcome {
            Outcome::Measured(run) => return Some(*run),
            Outcome::Unavailable(_) if !self.runs.is_empty() => return None,
            Outcome::Unavailable(reason) => (reason, false),
            Outcome::Failed(reason) => (reason, true),
            Outcome::Interrupted => return None,
        };
        self.excluded = Some(Excluded { reason, failed });
        None
    }

    fn replace_last_if_calmer(&mut self, second: Run) {
        if let Some(last) = self.runs.last_mut()
            && second.others_per_mille <= last.others_per_mille
        {
            *last = second;
        }
    }
}

/// How fast it goes.
struct Pace {
    limit: Option<Duration>,
    elapsed: Duration,
    made: u32,
}

impl Pace {
    /// Whether so many more runs of the mean length so far end in time.
    fn has_time_for(&self, runs: u64) -> bool {
        let Some(limit) = self.limit else { return true };
        let runs = u32::try_from(runs).unwrap_or(u32::MAX);
        let needed = (self.elapsed / self.made.max(1)).saturating_mul(runs);
        self.elapsed.saturating_add(needed) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    fn extent(cells: usize, rounds: u32) -> Extent {
        Extent {
            cells,
            rounds,
            limit: None,
        }
    }

    fn measured(acquisitions: u64, others_per_mille: u32) -> Outcome {
        Outcome::Measured(Box::new(Run {
            acquisitions,
            others_per_mille: Some(others_per_mille),
            ..Run::default()
        }))
    }

    fn no_time() -> Duration {
        Duration::ZERO
    }

    /// Runs `extent`; `outcome` gets the step and how many runs came before.
    fn all(
        extent: Extent,
        outcome: impl Fn(Step, usize) -> Outcome,
    ) -> (Vec<Kept>, bool, Vec<Step>) {
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
            0 => Outcome::Unavailable("not here".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!(steps.iter().filter(|step| step.cell == 0).count(), 1);
        let excluded = kept[0].excluded.as_ref().expect("excluded");
        assert_eq!(
            (excluded.reason.as_str(), excluded.failed),
            ("not here", false)
        );
        assert_eq!(kept[1].runs.len(), 3);
    }

    #[test]
    fn cell_that_could_run_before_only_misses_a_run() {
        let (kept, _, _) = all(extent(1, 3), |step, _| match step.round {
            1 => Outcome::Unavailable("busy".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!((kept[0].runs.len(), &kept[0].excluded), (2, &None));
    }

    #[test]
    fn failure_excludes_even_what_ran_before() {
        let (kept, _, steps) = all(extent(1, 3), |step, _| match step.round {
            1 => Outcome::Failed("wrong".to_owned()),
            _ => measured(1, 0),
        });
        assert_eq!(steps.len(), 2);
        assert!(kept[0].excluded.as_ref().is_some_and(|e| e.failed));
    }

    #[test]
    fn interruption_keeps_what_there_is() {
        let (kept, interrupted, _) = all(extent(2, 3), |_, before| match before {
            3 => Outcome::Interrupted,
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
