//! The report as tables on a terminal: a block for each load, a row for each lock, a column for each
//! policy.

use std::fmt::Write;

use baton_config::units::readable_ns;
use baton_config::units::{format_cpus, format_ns};

use super::axes::{HARD_BUDGET, Load, Lock, name};
use super::cell::Cell;
use super::plan::Plan;
use super::schema::{CellRow, LhpReport, Reference, SkippedCell};
use crate::report::stats::Spread;

/// All tables, and the notes below them.
#[must_use]
pub fn render(plan: &Plan, report: &LhpReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Lock-holder preemption on host CPUs {}, {} of {} a cell, in {}.\n\
         Lock acquisitions per second of CPU time, median +- half the spread, relative to the reference\n\
         (the same lock without overcommit under the host kernel, measured too); below, the longest wait.",
        format_cpus(&plan.host_cpus),
        runs(report),
        format_ns(report.settings.run_ns),
        readable_ns(report.elapsed_ns),
    );
    for &load in &plan.matrix.loads {
        block(&mut text, plan, report, load);
    }
    notes(&mut text, report);
    text
}

/// The number of runs of a cell, which is lower than planned if the time was short.
#[must_use]
pub fn runs(report: &LhpReport) -> String {
    let planned = u64::from(report.settings.runs);
    match report.results.iter().map(|row| row.runs).max() {
        Some(made) if made < planned => format!("{made} of {planned} runs"),
        _ if planned == 1 => "1 run".to_owned(),
        _ => format!("{planned} runs"),
    }
}

/// The table of one load.
fn block(text: &mut String, plan: &Plan, report: &LhpReport, load: Load) {
    let lines = cells(plan, report, load);
    let widths: Vec<usize> = (0..=plan.matrix.policies.len())
        .map(|column| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{}", describe(load, plan.host_cpus.len()));
    for line in lines {
        let mut cells = line.iter().zip(&widths);
        if let Some((lock, width)) = cells.next() {
            let _ = write!(text, "  {lock:<width$}");
        }
        for (cell, width) in cells {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

/// The cells of that table: the names of the policies, then for each lock a line of ratios and one of waits.
fn cells(plan: &Plan, report: &LhpReport, load: Load) -> Vec<Vec<String>> {
    let policies = &plan.matrix.policies;
    let mut title = vec![String::new()];
    title.extend(policies.iter().map(name));
    let mut lines = vec![title];
    for &lock in &plan.matrix.locks {
        let line = |first: String, of: fn(&CellRow, &LhpReport) -> String| {
            let mut line = vec![first];
            line.extend(policies.iter().map(|&policy| {
                let row = report.row(Cell { lock, load, policy });
                row.map_or_else(|| "-".to_owned(), |row| of(row, report))
            }));
            line
        };
        lines.push(line(marked(lock, report), ratio));
        lines.push(line(String::new(), |row, _| readable_ns(row.wait_ns.max)));
    }
    lines
}

/// A description of `load` on a pool of `cpus` host CPUs.
#[must_use]
pub fn describe(load: Load, cpus: usize) -> String {
    let vcpus = match load.lock_guests(cpus)[..] {
        [one] => format!("{one} vCPUs"),
        ref several => {
            let counts: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("{} vCPUs", counts.join(" + "))
        }
    };
    let hogs = match load.hog_vcpus(cpus) {
        0 => String::new(),
        hogs => format!(" beside {hogs} of a hog"),
    };
    let budgets = if load == Load::Hard {
        format!(", each with {HARD_BUDGET},")
    } else {
        String::new()
    };
    format!(
        "{}: {vcpus}{hogs}{budgets} on {cpus} host CPUs",
        name(&load)
    )
}

/// The name of a lock, with a mark if the reference of its ratios was disturbed.
fn marked(lock: Lock, report: &LhpReport) -> String {
    let is_disturbed = |reference: &Reference| reference.disturbed > 0;
    let mark = match report.reference(lock).is_some_and(is_disturbed) {
        true => "*",
        false => "",
    };
    name(&lock) + mark
}

/// The reference of the ratios of one lock, with its spread and a warning if it was disturbed.
#[must_use]
pub fn reference_note(reference: &Reference) -> String {
    let Spread { median, min, max } = reference.acq_per_cpu_s;
    let lock = name(&reference.lock);
    let spread = match reference.runs {
        1 => "one run".to_owned(),
        runs => format!("{min} to {max} in {runs} runs"),
    };
    let warning = match reference.disturbed {
        0 => String::new(),
        disturbed => format!(
            " * Other processes disturbed {disturbed} of {}, so all ratios of {lock} may be too high.",
            reference.runs
        ),
    };
    format!(
        "The reference of {lock}: {median} acquisitions per second of CPU time ({spread}).{warning}"
    )
}

fn ratio(row: &CellRow, report: &LhpReport) -> String {
    let mark = if row.disturbed > 0 { "*" } else { "" };
    let reference = report.reference(row.cell.lock);
    let reference = reference.map_or(0, |reference| reference.acq_per_cpu_s.median);
    match row.ratio_to_reference {
        Some(ratio) if row.runs > 1 => {
            let Spread { min, max, .. } = row.acq_per_cpu_s;
            let spread = (max - min) as f64 / 2.0 / reference.max(1) as f64;
            format!("{ratio:.3}+-{spread:.3}{mark}")
        }
        Some(ratio) => format!("{ratio:.3}{mark}"),
        None => "?".to_owned(),
    }
}

fn notes(text: &mut String, report: &LhpReport) {
    text.push('\n');
    for reference in &report.references {
        let _ = writeln!(text, "{}", reference_note(reference));
    }
    if report.disturbed_runs > 0 || report.repeated_runs > 0 {
        let _ = writeln!(
            text,
            "* Other processes took more than {} % of the host CPUs in {} of the runs that count \
             ({} were repeated).",
            report.settings.disturbed_above_per_mille / 10,
            report.disturbed_runs,
            report.repeated_runs
        );
    }
    text.push_str(&skipped(&report.skipped));
    if report.interrupted {
        text.push_str("Interrupted: not all rounds were measured.\n");
    }
}

/// One line for each cell that failed, and one for each reason why a policy was not measured, which is
/// often the same for all cells.
fn skipped(cells: &[SkippedCell]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for SkippedCell {
        cell: Cell { lock, load, policy },
        reason,
        failed,
    } in cells
    {
        let line = if *failed {
            let (lock, load, policy) = (name(lock), name(load), name(policy));
            format!("FAILED: {lock} {load} {policy}: {reason}\n")
        } else {
            format!("Not measured: {}: {reason}\n", name(policy))
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::report::tests::{plan, report};

    #[test]
    fn blocks_have_a_column_for_each_policy_and_gaps_are_explained() {
        let text = render(&plan(), &report());
        let block: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with("4x"))
            .take(4)
            .collect();
        assert_eq!(
            block,
            [
                "4x: 8 vCPUs on 2 host CPUs",
                "              host-spin  host-deadline          baton",
                "  ticket*  0.075+-0.025              -  0.500+-0.250*",
                "                 2.00us              -         2.00us",
            ]
        );
        assert!(text.contains("The reference of ticket: 200 "));
        assert!(
            !text.contains("limit"),
            "a reference can be beaten, so it is no limit: {text}"
        );
        assert!(text.contains("Not measured: host-deadline: needs <root>\n"));
        assert!(text.contains("FAILED: ticket 8x host-deadline: needs <root>\n"));
    }

    #[test]
    fn a_reference_has_a_spread_and_a_warning_if_it_was_disturbed() {
        let reference = |runs, disturbed| Reference {
            lock: Lock::Mcs,
            runs,
            disturbed,
            acq_per_cpu_s: Spread {
                median: 200,
                min: 150,
                max: 210,
            },
        };
        assert_eq!(
            reference_note(&reference(3, 0)),
            "The reference of mcs: 200 acquisitions per second of CPU time (150 to 210 in 3 runs)."
        );
        let disturbed = reference_note(&reference(3, 2));
        assert!(
            disturbed.ends_with("disturbed 2 of 3, so all ratios of mcs may be too high."),
            "{disturbed}"
        );
        assert!(reference_note(&reference(1, 0)).ends_with("(one run)."));
    }

    #[test]
    fn loads_are_described_by_their_guests() {
        assert_eq!(
            describe(Load::TwoGuests, 2),
            "two-guests: 2 + 2 vCPUs on 2 host CPUs"
        );
        assert_eq!(
            describe(Load::Hog, 3),
            "hog: 3 vCPUs beside 3 of a hog on 3 host CPUs"
        );
        assert_eq!(
            describe(Load::Hard, 2),
            "hard: 4 vCPUs, each with 4ms/10ms,hard, on 2 host CPUs"
        );
    }
}
