//! The report of `baton bench attacks` as a table.

use std::fmt::Write;

use super::report::{AttacksReport, SkippedAttack};
use crate::report::stats::Spread;

/// The report as a table.
#[must_use]
pub fn render(report: &AttacksReport) -> String {
    let mut text = format!(
        "A victim with a hard reservation that computes, beside an idle guest and beside the same guest \
         attacking, medians of {} runs in turn\n\
         charged, used: CPU time that the attacker was charged, and that the process used but for others' \
         charges\n\
         received: the victim's charge, of what it was promised; /work: its work relative to that beside \
         the idle guest\n\
         {:<15} {:>11} {:>11} {:>11} {:>17} {:>17} {:>7} {:>11} {:>17}\n",
        report.runs,
        "attack",
        "charged, ms",
        "used, ms",
        "idle, ms",
        "received, %",
        "deadlines missed",
        "/ work",
        "/ per CPU s",
        "exits",
    );
    let ms = |ns: &Spread| format!("{:.0}", ns.median as f64 / 1e6);
    let percent = |ratio: f64| format!("{:.1}", ratio * 100.0);
    let from_to = |idle: String, attacked: String| format!("{idle} -> {attacked}");
    for row in &report.results {
        let (idle, attacked) = (&row.beside_idle, &row.beside_attacker);
        let count = |count: &Spread| count.median.to_string();
        let ratio =
            |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<15} {:>11} {:>11} {:>11} {:>17} {:>17} {:>7} {:>11} {:>17}",
            row.attack,
            ms(&attacked.attacker_charged_ns),
            ms(&attacked.attacker_used_ns),
            ms(&idle.attacker_used_ns),
            from_to(percent(idle.received), percent(attacked.received)),
            from_to(count(&idle.misses), count(&attacked.misses)),
            ratio(row.work_ratio),
            ratio(row.work_per_cpu_ratio),
            from_to(count(&idle.exits), count(&attacked.exits)),
        );
    }
    for SkippedAttack { attack, reason, .. } in &report.skipped {
        let _ = writeln!(text, "{attack}: skipped: {reason}");
    }
    text
}
