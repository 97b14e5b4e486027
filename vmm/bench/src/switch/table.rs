//! The report of `baton bench switch` as a table.

use std::fmt::Write;

use super::report::{SkippedOperation, SwitchReport};
use crate::report::stats::Spread;

/// The report as a table.
#[must_use]
pub fn render(report: &SwitchReport) -> String {
    let microseconds = |spread: &Spread| {
        format!(
            "{:.1} ({:.1} to {:.1})",
            spread.median as f64 / 1e3,
            spread.min as f64 / 1e3,
            spread.max as f64 / 1e3
        )
    };
    let or_dash = |spread: &Option<Spread>| spread.as_ref().map_or("-".to_owned(), microseconds);
    let mut text = format!(
        "Microseconds, medians of {} runs in turn (least to most)\n{:<48} {:>24} {:>24} {:>24} {:>6}\n",
        report.runs, "", "baton", "without it", "thread per vCPU", "ratio"
    );
    for row in &report.results {
        let ratio = match &row.host_ns {
            Some(host) if host.median > 0 => {
                format!("{:.2}", row.baton_ns.median as f64 / host.median as f64)
            }
            _ => "-".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<48} {:>24} {:>24} {:>24} {ratio:>6}",
            row.operation.what(),
            microseconds(&row.baton_ns),
            or_dash(&row.without_ns),
            or_dash(&row.host_ns),
        );
    }
    let _ = writeln!(
        text,
        "\n{:<48} {:>24} {:>24} {:>24}",
        "As processes of a pool", "vCPU threads", "pool", "ratio, median of rounds"
    );
    for row in &report.results {
        let ratio = row.pool_to_threads;
        let _ = writeln!(
            text,
            "{:<48} {:>24} {:>24} {:>24}",
            row.operation.what(),
            or_dash(&row.threads_ns),
            or_dash(&row.pool_ns),
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        );
    }
    for SkippedOperation { operation, reason } in &report.skipped {
        let _ = writeln!(text, "{}: skipped: {reason}", operation.what());
    }
    text
}
