//! One line on a terminal that tells how far a long benchmark is.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::matrix::{Cell, name};
use super::rounds::Step;

/// The line; silent where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// For stderr.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
        }
    }

    /// `step`, which runs `cell`, begins after `elapsed`.
    pub fn show(&self, step: Step, cell: &Cell, elapsed: Duration) {
        if self.shown {
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(step, cell, elapsed));
            let _ = io::stderr().flush();
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

const BAR: u64 = 20;

fn line(step: Step, cell: &Cell, elapsed: Duration) -> String {
    let full = (step.done * BAR / step.total.max(1)) as usize;
    let mut line = format!(
        "[{:<width$}] {}/{}  round {}: {} {} {}",
        "#".repeat(full),
        step.done,
        step.total,
        step.round + 1,
        name(&cell.load),
        name(&cell.lock),
        name(&cell.policy),
        width = BAR as usize,
    );
    if step.again {
        line.push_str(", again");
    }
    let runs_left = step.total.saturating_sub(step.done);
    if let Some(left) = (elapsed.as_secs() * runs_left).checked_div(step.done) {
        line.push_str(&match left {
            0..60 => format!(", {left} s left"),
            _ => format!(", {} min left", left.div_ceil(60)),
        });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::matrix::Lock;

    #[test]
    fn line_tells_what_runs_and_how_long_it_will_take() {
        let step = Step {
            cell: 0,
            round: 1,
            done: 30,
            total: 120,
            again: true,
        };
        assert_eq!(
            line(step, &Cell::limit_of(Lock::Mcs), Duration::from_secs(30)),
            "[#####               ] 30/120  round 2: 1x mcs host-spin, again, 2 min left"
        );
    }
}
