//! The distribution of waits for one lock, in the usual form for HDR histograms: each step to the right
//! leaves a tenth of the longest waits, and time is logarithmic, upwards. There is a line for each policy.

use baton_config::units::readable_ns;

use super::axes::{Load, Lock, name};
use super::cell::Cell;
use super::color::color;
use super::schema::{CellRow, LhpReport};
use super::table::describe;
use crate::report::svg::{LogScale, Sheet};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// The labels of the horizontal axis, percent.
const MARKS: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];
/// The place of the longest wait, as a number of nines; no percentile reaches it.
const LONGEST: f64 = 5.0;
/// The loads in the order of preference: the first one that was measured is shown.
const LOADS: [Load; 7] = [
    Load::X4,
    Load::X8,
    Load::X2,
    Load::TwoGuests,
    Load::Hog,
    Load::Hard,
    Load::X1,
];

/// The title and the drawing for `lock`; `None` if nothing was measured.
#[must_use]
pub fn plot(report: &LhpReport, lock: Lock) -> Option<(String, String)> {
    let rows: Vec<&CellRow> = LOADS.iter().find_map(|load| {
        let rows = report.results.iter();
        let cell = |cell: Cell| cell.lock == lock && cell.load == *load;
        let rows: Vec<&CellRow> = rows
            .filter(|row| cell(row.cell) && row.wait_percentiles_ns.is_some())
            .collect();
        (!rows.is_empty()).then_some(rows)
    })?;
    let first = rows.first()?;
    let title = format!(
        "{} at {}",
        name(&lock),
        describe(first.cell.load, first.host_cpus)
    );
    Some((title, draw(&rows)))
}

fn draw(rows: &[&CellRow]) -> String {
    let points = |row: &CellRow| row.wait_percentiles_ns.clone().unwrap_or_default();
    let times = rows.iter().flat_map(|row| points(row)).map(|(_, ns)| ns);
    let scale = LogScale::new(times, TOP, HEIGHT - BOTTOM);
    let mut sheet = Sheet::new(WIDTH, HEIGHT);
    for (y, label) in scale.decades() {
        sheet.grid_line((LEFT, WIDTH - RIGHT), y, &label, "grid");
    }
    for percent in MARKS {
        let x = x(percent);
        let label = match percent {
            100.0 => "max".to_owned(),
            percent => format!("{percent} %"),
        };
        sheet.add(format_args!(
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - 8.0,
        ));
    }
    for row in rows {
        let figures = row.wait_ns;
        let mut path = String::new();
        for (percent, ns) in points(row) {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            path += &format!("{verb}{:.1} {:.1}", x(percent), scale.y(ns));
        }
        sheet.add(format_args!(
            "<path class=\"line\" stroke=\"{}\" d=\"{path}\"><title>{}: half up to {}, 99 % up to {}, \
             99.9 % up to {}, longest {}</title></path>",
            color(row.cell.policy),
            name(&row.cell.policy),
            readable_ns(figures.p50),
            readable_ns(figures.p99),
            readable_ns(figures.p999),
            readable_ns(figures.max),
        ));
    }
    sheet.finish()
}

/// The place of a percentage, by its number of nines.
fn x(percent: f64) -> f64 {
    let nines = |percent: f64| (2.0 - (100.0 - percent).log10()).min(LONGEST);
    let from = nines(MARKS[0]);
    let place = (nines(percent) - from) / (LONGEST - from);
    LEFT + (WIDTH - LEFT - RIGHT) * place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::report::tests::report;

    /// The numbers of the paths of this class.
    fn lines(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let paths = svg.split("class=\"line\"").skip(1);
        let points = paths.map(|path| path.split(" d=\"M").nth(1).expect("a path"));
        let points = points.map(|path| path.split('"').next().expect("quoted").split('L'));
        let number = |text: &str| text.parse().expect("a number");
        points
            .map(|path| {
                path.map(|point| point.split_once(' ').expect("two numbers"))
                    .map(|(x, y)| (number(x), number(y)))
                    .collect()
            })
            .collect()
    }

    #[test]
    fn each_policy_has_a_line_that_rises_to_the_longest_wait() {
        let mut report = report();
        for row in &mut report.results {
            row.wait_percentiles_ns = Some(vec![(50.0, 90), (99.9, 4_000), (100.0, 70_000_000)]);
        }
        let (title, svg) = plot(&report, Lock::Ticket).expect("measured");
        assert_eq!(title, "ticket at 4x: 8 vCPUs on 2 host CPUs");
        let lines = lines(&svg);
        assert_eq!(lines.len(), 2, "host-deadline was not measured");
        for line in lines {
            assert!(line.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 > w[1].1));
            assert_eq!((line[0].0, line[2].0), (LEFT, WIDTH - RIGHT));
        }
        for label in ["50 %", "99.99 %", "max", "100ms"] {
            assert!(svg.contains(&format!(">{label}<")), "{label}");
        }
    }

    #[test]
    fn the_highest_load_stands_in_for_4x() {
        let mut report = report();
        report.results.retain(|row| row.cell.load != Load::X4);
        let (title, _) = plot(&report, Lock::Ticket).expect("measured");
        assert!(title.starts_with("ticket at 8x"), "{title}");
        assert_eq!(plot(&report, Lock::Mcs), None);
    }

    #[test]
    fn nothing_is_outside_the_drawing_whatever_was_waited() {
        let mut report = report();
        let points = vec![(50.0, 0), (99.99, u64::MAX), (100.0, u64::MAX)];
        report.results[0].wait_percentiles_ns = Some(points);
        let (_, svg) = plot(&report, Lock::Ticket).expect("measured");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        for (x, y) in lines(&svg).concat() {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
    }
}
