//! Throughput and waits of one lock as SVG: a group for each load, and in it a place for each policy.

use std::fmt;

use baton_config::units::readable_ns;

use super::axes::{Load, Lock, Policy, name};
use super::cell::Cell;
use super::color::color;
use super::plan::Plan;
use super::schema::{CellRow, LhpReport};
use crate::report::escape::Escaped;
use crate::report::svg::{LogScale, Sheet};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Empty space between two groups, in places.
const GAP: f64 = 1.0;

/// Throughput relative to the reference, as bars.
#[must_use]
pub fn throughput(plan: &Plan, report: &LhpReport, lock: Lock) -> String {
    let reference = report.reference(lock);
    let reference = reference.map_or(1, |found| found.acq_per_cpu_s.median.max(1)) as f64;
    let rows = rows(report, lock);
    let highest = rows
        .iter()
        .map(|row| row.acq_per_cpu_s.max as f64 / reference);
    let top = highest.fold(1.0, f64::max) * 1.05;
    let y = |ratio: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - ratio / top);
    let step = if top > 3.0 { 1.0 } else { 0.25 };
    let mut drawing = GroupedDrawing::new(plan);
    for k in 0..=(top / step) as u32 {
        let ratio = f64::from(k) * step;
        drawing.grid_line(y(ratio), &format!("{ratio:.2}"), "grid");
    }
    drawing.grid_line(y(1.0), "", "reference");
    for row in rows {
        let Some((x, width)) = drawing.place(row) else {
            continue;
        };
        let ratio = |speed: u64| speed as f64 / reference;
        let (low, middle, high) = (
            y(ratio(row.acq_per_cpu_s.min)),
            y(ratio(row.acq_per_cpu_s.median)),
            y(ratio(row.acq_per_cpu_s.max)),
        );
        let center = x + width / 2.0;
        drawing.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{middle:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{}\"><title>{}: {:.3} of the reference, {}/s</title></rect>\
             <path class=\"whisker\" d=\"M{center:.1} {low:.1}V{high:.1}\"/>",
            y(0.0) - middle,
            color(row.cell.policy),
            title(row),
            ratio(row.acq_per_cpu_s.median),
            row.acq_per_cpu_s.median,
        ));
    }
    drawing.finish()
}

/// Wait percentiles on a logarithmic scale.
#[must_use]
pub fn waits(plan: &Plan, report: &LhpReport, lock: Lock) -> String {
    let rows = rows(report, lock);
    let times = rows
        .iter()
        .flat_map(|row| [row.wait_ns.p50, row.wait_ns.max]);
    let scale = LogScale::new(times, TOP, HEIGHT - BOTTOM);
    let y = |ns| scale.y(ns);
    let mut drawing = GroupedDrawing::new(plan);
    for (y, label) in scale.decades() {
        drawing.grid_line(y, &label, "grid");
    }
    for row in rows {
        let Some((x, width)) = drawing.place(row) else {
            continue;
        };
        let figures = row.wait_ns;
        let center = x + width / 2.0;
        let (p50, p99, p999, max) = (
            y(figures.p50),
            y(figures.p99),
            y(figures.p999),
            y(figures.max),
        );
        let (a, b) = (x + width * 0.2, x + width * 0.8);
        drawing.add(format_args!(
            "<g stroke=\"{color}\" fill=\"{color}\" stroke-width=\"2\"><title>{}: half below {}, \
             99 % below {}, 99.9 % below {}, longest {}</title>\
             <path d=\"M{center:.1} {p50:.1}V{max:.1}M{a:.1} {p99:.1}H{b:.1}M{a:.1} {p999:.1}H{b:.1}\"/>\
             <circle cx=\"{center:.1}\" cy=\"{p50:.1}\" r=\"2.5\"/>\
             <path d=\"M{center:.1} {:.1}l4 4l-4 4l-4 -4z\"/></g>",
            title(row),
            readable_ns(figures.p50),
            readable_ns(figures.p99),
            readable_ns(figures.p999),
            readable_ns(figures.max),
            max - 4.0,
            color = color(row.cell.policy),
        ));
    }
    drawing.finish()
}

fn rows(report: &LhpReport, lock: Lock) -> Vec<&CellRow> {
    let rows = report.results.iter();
    rows.filter(|row| row.cell.lock == lock).collect()
}

fn title(row: &CellRow) -> String {
    let Cell { load, policy, .. } = row.cell;
    format!("{} {}", name(&load), name(&policy))
}

/// A drawing with a group for each load, and in it a place for each policy.
struct GroupedDrawing<'a> {
    sheet: Sheet,
    loads: &'a [Load],
    policies: &'a [Policy],
}

impl<'a> GroupedDrawing<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut drawing = Self {
            sheet: Sheet::new(WIDTH, HEIGHT),
            loads: &plan.matrix.loads,
            policies: &plan.matrix.policies,
        };
        for (group, load) in drawing.loads.iter().enumerate() {
            let places = drawing.policies.len() as f64;
            let x = drawing.x(group, 0) + drawing.unit() * places / 2.0;
            let label = name(load);
            drawing.add(format_args!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 8.0,
                Escaped(&label)
            ));
        }
        drawing
    }

    fn add(&mut self, part: fmt::Arguments<'_>) {
        self.sheet.add(part);
    }

    fn grid_line(&mut self, y: f64, label: &str, class: &str) {
        self.sheet.grid_line((LEFT, WIDTH - RIGHT), y, label, class);
    }

    /// Width of a place.
    fn unit(&self) -> f64 {
        let places = self.loads.len() as f64 * (self.policies.len() as f64 + GAP);
        (WIDTH - LEFT - RIGHT) / places.max(1.0)
    }

    fn x(&self, group: usize, place: usize) -> f64 {
        let groups = group as f64 * (self.policies.len() as f64 + GAP);
        LEFT + self.unit() * (groups + GAP / 2.0 + place as f64)
    }

    /// Left edge and width of the place of `row`.
    fn place(&self, row: &CellRow) -> Option<(f64, f64)> {
        let group = self.loads.iter().position(|l| *l == row.cell.load)?;
        let place = self.policies.iter().position(|p| *p == row.cell.policy)?;
        let width = self.unit() * 0.88;
        // A place that is alone would be very wide.
        let shown = width.min(60.0);
        Some((self.x(group, place) + (width - shown) / 2.0, shown))
    }

    fn finish(self) -> String {
        self.sheet.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::report::tests::{plan, report};

    #[test]
    fn there_is_a_bar_for_each_row_and_none_leaves_the_drawing() {
        let svg = throughput(&plan(), &report(), Lock::Ticket);
        assert_eq!(svg.matches("<rect").count(), 4);
        for part in svg.split("height=\"").skip(1) {
            let height: f64 = part
                .split('"')
                .next()
                .expect("quoted")
                .parse()
                .expect("number");
            assert!((0.0..=HEIGHT).contains(&height), "{height}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn waits_of_any_size_are_drawn() {
        let mut report = report();
        report.results[0].wait_ns.p50 = 0;
        report.results[1].wait_ns.max = u64::MAX;
        let svg = waits(&plan(), &report, Lock::Ticket);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
