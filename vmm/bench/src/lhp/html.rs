//! The report as one HTML page with drawings, complete in itself: no scripts, no other files.

use std::fmt::{self, Write};

use baton_config::units::readable_ns;
use baton_config::units::{format_cpus, format_ns};

use super::axes::{Lock, name};
use super::cell::Cell;
use super::color;
use super::percentiles;
use super::plan::Plan;
use super::plot;
use super::scene::Scenes;
use super::scene_plot;
use super::schema::{CellRow, LhpReport};
use super::table::{describe, reference_note, runs};
use crate::report::escape::Escaped;

const STYLE: &str = "\
:root{--ink:#1a1a1a;--faint:#8a8a8a;--grid:#e2e2e2;--paper:#fff}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;\
margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem}h3{font-size:1rem;margin-bottom:.2rem}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}\
svg .faint{fill:var(--faint)}svg .grid{stroke:var(--grid)}svg .reference{stroke:var(--ink);\
stroke-dasharray:4 3}svg .whisker{stroke:var(--ink)}svg .line{fill:none;stroke-width:2}\
svg .on{fill:var(--paper)}svg .wait{fill:none;stroke:var(--ink);stroke-dasharray:3 3}\
.key{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 1em}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;white-space:nowrap}\
th,td{padding:.15rem .6rem;text-align:right;border-bottom:1px solid var(--grid)}\
th:nth-child(-n+3),td:nth-child(-n+3){text-align:left}.note{color:var(--faint)}";

/// The whole page; `scenes` is `None` if the scenes were not recorded.
#[must_use]
pub fn render(plan: &Plan, report: &LhpReport, scenes: Option<&Scenes>) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = page_to(&mut page, plan, report, scenes);
    page
}

fn page_to(
    out: &mut String,
    plan: &Plan,
    report: &LhpReport,
    scenes: Option<&Scenes>,
) -> fmt::Result {
    introduction(out, plan, report)?;
    throughput(out, plan, report)?;
    waits(out, plan, report)?;
    distribution(out, &plan.matrix.locks, report)?;
    if let Some(scenes) = scenes {
        critical_section(out, scenes)?;
    }
    writeln!(out, "<h2>All numbers</h2>")?;
    numbers(out, report)?;
    writeln!(out, "</body></html>")
}

/// The head of the page, what was measured and where, and the legend of the drawings.
fn introduction(out: &mut String, plan: &Plan, report: &LhpReport) -> fmt::Result {
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Lock-holder preemption</title><style>{STYLE}</style></head><body>\n\
         <h1>Lock-holder preemption</h1>"
    )?;
    writeln!(
        out,
        "<p>Baton {} on {} ({}), Linux {}. {} of {} a cell, {} under the lock and {} outside; \
         {} in all.</p>",
        report.settings.version,
        Escaped(&report.host.processor),
        host_cpus(plan),
        Escaped(&report.host.kernel),
        runs(report),
        format_ns(report.settings.run_ns),
        format_ns(report.settings.hold_ns),
        format_ns(report.settings.outside_ns),
        readable_ns(report.elapsed_ns),
    )?;
    notes(out, report)?;
    writeln!(out, "<p>Loads: {}.</p>", {
        let loads = plan.matrix.loads.iter();
        let loads: Vec<String> = loads.map(|l| describe(*l, plan.host_cpus.len())).collect();
        loads.join("; ")
    })?;
    writeln!(out, "<p>{}</p>", color::legend(&plan.matrix.policies))
}

fn throughput(out: &mut String, plan: &Plan, report: &LhpReport) -> fmt::Result {
    writeln!(
        out,
        "<h2>Throughput</h2>\n<p class=\"note\">Acquisitions per second of CPU time, relative to the \
         reference: the same lock without overcommit under the host kernel (dashed), which is measured \
         too. Medians; whiskers from the lowest to the highest run.</p>"
    )?;
    for &lock in &plan.matrix.locks {
        let reference = report.reference(lock).map(reference_note);
        writeln!(
            out,
            "<h3>{}</h3>\n<p class=\"note\">{}</p>\n{}",
            name(&lock),
            reference.as_deref().unwrap_or("There is no reference."),
            plot::throughput(plan, report, lock)
        )?;
    }
    Ok(())
}

fn waits(out: &mut String, plan: &Plan, report: &LhpReport) -> fmt::Result {
    writeln!(
        out,
        "<h2>Waits</h2>\n<p class=\"note\">From the median (dot) over 99 % and 99.9 % (ticks) to the \
         longest wait (diamond) of all runs, on a logarithmic scale.</p>"
    )?;
    for &lock in &plan.matrix.locks {
        let plot = plot::waits(plan, report, lock);
        writeln!(out, "<h3>{}</h3>\n{plot}", name(&lock))?;
    }
    Ok(())
}

fn distribution(out: &mut String, locks: &[Lock], report: &LhpReport) -> fmt::Result {
    writeln!(
        out,
        "<h2>Distribution of waits</h2>\n<p class=\"note\">How long so many percent of all waits were \
         at most, on a logarithmic scale; all runs together. The percentages are exact, the times \
         rounded up by at most a sixteenth.</p>"
    )?;
    for &lock in locks {
        if let Some((title, plot)) = percentiles::plot(report, lock) {
            writeln!(out, "<h3>{}</h3>\n{plot}", Escaped(&title))?;
        }
    }
    Ok(())
}

/// The section about one preempted critical section, without and with proxying.
fn critical_section(out: &mut String, scenes: &Scenes) -> fmt::Result {
    writeln!(
        out,
        "<h2>One preempted critical section</h2>\n<p class=\"note\">vCPU 0 has 1 ms in 10 ms and needs \
         2 ms under the lock; vCPU 1 has 5 ms in 10 ms and wants the lock. The longest wait of a short \
         run of each policy, on the same scale of time. Recorded apart from the measurements.</p>"
    )?;
    let scenes = match scenes {
        Ok(scenes) => scenes,
        Err(error) => {
            let error = error.to_string();
            return writeln!(out, "<p>Not recorded: {}.</p>", Escaped(&error));
        }
    };
    writeln!(out, "<p>{}</p>", scene_plot::legend())?;
    for scene in scenes {
        let plot = scene_plot::plot(scene);
        writeln!(out, "<h3>{}</h3>\n{plot}", name(&scene.policy))?;
    }
    Ok(())
}

fn host_cpus(plan: &Plan) -> String {
    format!("host CPUs {}", format_cpus(&plan.host_cpus))
}

fn notes(out: &mut String, report: &LhpReport) -> fmt::Result {
    if report.disturbed_runs > 0 {
        writeln!(
            out,
            "<p><strong>Disturbed:</strong> in {} of the runs that count, other processes took more \
             than {} % of the host CPUs.</p>",
            report.disturbed_runs,
            report.settings.disturbed_above_per_mille / 10
        )?;
    }
    if report.interrupted {
        writeln!(out, "<p><strong>Interrupted</strong> before its end.</p>")?;
    }
    if !report.skipped.is_empty() {
        writeln!(out, "<p>Not measured:</p><ul>")?;
        for skipped in &report.skipped {
            let Cell { lock, load, policy } = skipped.cell;
            writeln!(
                out,
                "<li>{} {} {}: {}{}</li>",
                name(&lock),
                name(&load),
                name(&policy),
                if skipped.failed { "failed: " } else { "" },
                Escaped(&skipped.reason)
            )?;
        }
        writeln!(out, "</ul>")?;
    }
    Ok(())
}

/// The heading of a column, and its value in a row.
type HtmlColumn = (&'static str, fn(&CellRow) -> String);

const COLUMNS: [HtmlColumn; 18] = [
    ("lock", |row| name(&row.cell.lock)),
    ("load", |row| name(&row.cell.load)),
    ("policy", |row| name(&row.cell.policy)),
    ("per CPU s", |row| row.acq_per_cpu_s.median.to_string()),
    ("to reference", |row| {
        row.ratio_to_reference
            .map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.3}"))
    }),
    ("p50", |row| readable_ns(row.wait_ns.p50)),
    ("p99", |row| readable_ns(row.wait_ns.p99)),
    ("p99.9", |row| readable_ns(row.wait_ns.p999)),
    ("max", |row| readable_ns(row.wait_ns.max)),
    ("fairness", |row| format!("{:.3}", row.fairness)),
    ("CPU share", |row| format!("{:.3}", row.cpu_share)),
    ("ran", |row| readable_ns(row.ran_ns)),
    ("spun", |row| readable_ns(row.spin_ns)),
    ("switches/acq", |row| format!("{:.4}", row.switches_per_acq)),
    ("exits/acq", |row| format!("{:.4}", row.exits_per_acq)),
    ("proxied", |row| row.proxied.to_string()),
    ("holder preempted", |row| row.holder_preemptions.to_string()),
    ("disturbed", |row| format!("{}/{}", row.disturbed, row.runs)),
];

fn numbers(out: &mut String, report: &LhpReport) -> fmt::Result {
    write!(out, "<div class=\"wide\"><table><tr>")?;
    for (title, _) in COLUMNS {
        write!(out, "<th>{title}</th>")?;
    }
    writeln!(out, "</tr>")?;
    for row in &report.results {
        write!(out, "<tr>")?;
        for (_, value) in COLUMNS {
            write!(out, "<td>{}</td>", value(row))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table></div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::axes::Policy;
    use crate::lhp::report::tests::{plan, report};
    use crate::lhp::scene::SceneError;
    use crate::lhp::scene::tests::example;

    fn page() -> String {
        let scenes = [Policy::BatonNoHints, Policy::Baton].map(example);
        render(&plan(), &report(), Some(&Ok(scenes)))
    }

    #[test]
    fn page_needs_nothing_from_elsewhere() {
        let page = page();
        for word in [
            "http://", "https://", "<script", "<link", "<img", "@import", "url(",
        ] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn what_is_opened_is_closed() {
        let page = page();
        for tag in [
            "html", "body", "svg", "table", "ul", "p", "h2", "h3", "title", "text",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn each_lock_has_its_drawings_and_text_is_no_markup() {
        let page = page();
        assert_eq!(page.matches("<svg").count(), 3 + 2);
        assert!(page.contains("<h3>ticket at 4x: "));
        assert!(page.contains("needs &lt;root&gt;"));
    }

    #[test]
    fn scene_is_missing_with_a_reason_or_because_it_was_not_recorded() {
        let failed = Err(SceneError::Guest("died of <lies>".to_owned()));
        let page = render(&plan(), &report(), Some(&failed));
        assert!(page.contains("Not recorded: the guest died of &lt;lies&gt;."));
        let page = render(&plan(), &report(), None);
        assert!(!page.contains("One preempted critical section"));
    }
}
