//! The report as CSV: a line of names, then a line for each cell that was measured. All values are
//! numbers or plain names, so nothing needs quotes.

use super::axes::{Policy, name};
use super::schema::{CellRow, LhpReport};

/// The name of a column, and its value in a row.
type CsvColumn = (&'static str, fn(&CellRow) -> String);

const COLUMNS: [CsvColumn; 32] = [
    ("lock", |row| name(&row.cell.lock)),
    ("load", |row| name(&row.cell.load)),
    ("policy", |row| name(&row.cell.policy)),
    ("vcpus", |row| row.vcpus.to_string()),
    ("hog_vcpus", |row| row.hog_vcpus.to_string()),
    ("host_cpus", |row| row.host_cpus.to_string()),
    ("runs", |row| row.runs.to_string()),
    ("disturbed", |row| row.disturbed.to_string()),
    ("repeated", |row| row.repeated.to_string()),
    ("acq_per_cpu_s_median", |row| {
        row.acq_per_cpu_s.median.to_string()
    }),
    ("acq_per_cpu_s_min", |row| row.acq_per_cpu_s.min.to_string()),
    ("acq_per_cpu_s_max", |row| row.acq_per_cpu_s.max.to_string()),
    ("acq_per_s_per_host_cpu", |row| {
        row.acq_per_s_per_host_cpu.to_string()
    }),
    ("ratio_to_limit", |row| optional(row.ratio_to_reference)),
    ("ratio_to_host_spin", |row| ratio_to(row, Policy::HostSpin)),
    ("ratio_to_host_pv", |row| ratio_to(row, Policy::HostPv)),
    ("ratio_to_host_deadline", |row| {
        ratio_to(row, Policy::HostDeadline)
    }),
    ("wait_ns_p50", |row| row.wait_ns.p50.to_string()),
    ("wait_ns_p99", |row| row.wait_ns.p99.to_string()),
    ("wait_ns_p999", |row| row.wait_ns.p999.to_string()),
    ("wait_ns_max", |row| row.wait_ns.max.to_string()),
    ("wait_max_ns_median", |row| {
        row.wait_max_ns.median.to_string()
    }),
    ("wait_max_ns_min", |row| row.wait_max_ns.min.to_string()),
    ("fairness", |row| row.fairness.to_string()),
    ("cpu_share", |row| row.cpu_share.to_string()),
    ("ran_ns", |row| row.ran_ns.to_string()),
    ("spin_ns", |row| row.spin_ns.to_string()),
    ("switches_per_acq", |row| row.switches_per_acq.to_string()),
    ("exits_per_acq", |row| row.exits_per_acq.to_string()),
    ("proxied", |row| row.proxied.to_string()),
    ("deferrals", |row| row.deferrals.to_string()),
    ("holder_preemptions", |row| {
        row.holder_preemptions.to_string()
    }),
];

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn ratio_to(row: &CellRow, baseline: Policy) -> String {
    optional(row.ratio_to.get(&name(&baseline)).copied())
}

/// The whole file.
#[must_use]
pub fn render(report: &LhpReport) -> String {
    let mut text = String::new();
    let mut line = |values: Vec<String>| {
        text.push_str(&values.join(","));
        text.push('\n');
    };
    line(COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for row in &report.results {
        line(COLUMNS.iter().map(|(_, value)| value(row)).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::report::tests::report;

    #[test]
    fn every_line_has_every_column() {
        let text = render(&report());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.len() == COLUMNS.len()));
        let value = |name: &str| {
            let column = lines[0].iter().position(|title| *title == name);
            lines[2][column.expect("such a column")]
        };
        assert_eq!(value("policy"), "baton");
        assert_eq!(value("acq_per_cpu_s_max"), "150");
        assert_eq!(value("ratio_to_host_spin"), "6.6667");
        assert_eq!(value("ratio_to_host_pv"), "");
    }
}
