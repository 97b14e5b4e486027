//! The report of `baton bench linux` as a table.

use std::fmt::Write;

use super::report::LinuxReport;
use crate::report::stats::Spread;

/// The report as a table.
#[must_use]
pub fn render(report: &LinuxReport) -> String {
    let mut text = format!(
        "Work per second, longest and median wait, medians of {} runs in turn (least to most)\n\
         {:<10} {:<4} {:<14} {:>26} {:>7} {:>28} {:>7} {:>28} {:>7}\n",
        report.runs,
        "work",
        "load",
        "policy",
        "per second",
        "/ host",
        "longest wait, ms",
        "/ host",
        "median wait, ms",
        "/ host"
    );
    for row in &report.results {
        let rate = &row.per_second;
        let ms = |wait: &Option<Spread>, digits: usize| {
            let ms = |ns| format!("{:.digits$}", ns as f64 / 1e6);
            wait.as_ref().map_or("-".to_owned(), |wait| {
                format!("{} ({} to {})", ms(wait.median), ms(wait.min), ms(wait.max))
            })
        };
        let ratio =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<10} {:<4} {:<14} {:>26} {:>7} {:>28} {:>7} {:>28} {:>7}",
            row.work,
            row.load,
            row.policy,
            format!("{} ({} to {})", rate.median, rate.min, rate.max),
            ratio(row.ratio_to_host),
            ms(&row.max_wait_ns, 1),
            ratio(row.wait_ratio_to_host),
            ms(&row.median_wait_ns, 3),
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
