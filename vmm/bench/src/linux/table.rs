//! The report of `baton bench linux` as a table.

use std::fmt::Write;

use super::report::LinuxReport;
use crate::report::stats::Spread;

/// The report as a table.
#[must_use]
pub fn render(report: &LinuxReport) -> String {
    let mut text = format!(
        "Work per second, longest and median wait, medians of {} runs in turn (least to most)\n\
         {:<11} {:<4} {:<13} {:<18} {:>26} {:>7} {:>7} {:>28} {:>7} {:>28} {:>7}\n",
        report.runs,
        "work",
        "load",
        "kernel",
        "policy",
        "per second",
        "/ host",
        "/ baton",
        "longest wait, ms",
        "/ host",
        "median wait, ms",
        "/ host"
    );
    for row in &report.results {
        let rate = &row.per_second;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<11} {:<4} {:<13} {:<18} {:>26} {:>7} {:>7} {:>28} {:>7} {:>28} {:>7}",
            row.work,
            row.cell.load,
            row.cell.kernel,
            row.cell.policy,
            format!("{} ({} to {})", rate.median, rate.min, rate.max),
            ratio(row.ratio_to_host),
            ratio(row.ratio_to_baton),
            milliseconds(row.max_wait_ns, 1),
            ratio(row.wait_ratio_to_host),
            milliseconds(row.median_wait_ns, 3),
            ratio(row.median_wait_ratio_to_host)
        );
    }
    for (policy, restarts) in &report.restarts {
        if *restarts > 0 {
            let _ = writeln!(text, "{policy}: {restarts} guests started again");
        }
    }
    text
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A spread of nanoseconds in milliseconds, with `digits` after the point.
fn milliseconds(wait: Option<Spread>, digits: usize) -> String {
    let ms = |ns| format!("{:.digits$}", ns as f64 / 1e6);
    wait.map_or("-".to_owned(), |wait| {
        format!("{} ({} to {})", ms(wait.median), ms(wait.min), ms(wait.max))
    })
}
