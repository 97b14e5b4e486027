//! The status line of `baton bench lhp`.

use std::time::Duration;

use super::axes::name;
use super::cell::Cell;
use super::rounds::Step;

/// Width of the bar, characters.
const BAR: u64 = 20;

/// The text while `step` runs `cell`, which began `elapsed` after the start of the benchmark.
pub(super) fn line(step: Step, cell: &Cell, elapsed: Duration) -> String {
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
    use crate::lhp::axes::Lock;

    #[test]
    fn line_shows_what_runs_and_how_long_the_rest_will_take() {
        let step = Step {
            cell: 0,
            round: 1,
            done: 30,
            total: 120,
            again: true,
        };
        assert_eq!(
            line(
                step,
                &Cell::reference_of(Lock::Mcs),
                Duration::from_secs(30)
            ),
            "[#####               ] 30/120  round 2: 1x mcs host-spin, again, 2 min left"
        );
    }
}
