use super::*;
use crate::lhp::axes::{Load, Lock, Policy};
use crate::lhp::cell_runs::Exclusion;
use crate::lhp::matrix::Matrix;

/// A plan of ticket locks, at 4x and 8x, under three policies.
pub fn plan() -> Plan {
    Plan {
        matrix: Matrix {
            locks: vec![Lock::Ticket],
            loads: vec![Load::X4, Load::X8],
            policies: vec![Policy::HostSpin, Policy::HostDeadline, Policy::Baton],
        },
        runs: 2,
        time: Duration::from_millis(500),
        host_cpus: vec![0, 1],
        limit: None,
    }
}

fn cell_runs(acquisitions: &[u64]) -> CellRuns {
    let run = |&acquisitions| {
        let mut waits = Waits::default();
        waits.max_ns = 2_000;
        waits.count(1_500, acquisitions as u32);
        LockRun {
            acquisitions,
            ran_ns: 1_000_000_000,
            pool_ns: 2_000_000_000,
            waits,
            fairness: 0.5,
            switches: acquisitions,
            others_per_mille: Some(acquisitions as u32),
            ..LockRun::default()
        }
    };
    CellRuns {
        runs: acquisitions.iter().map(run).collect(),
        ..CellRuns::default()
    }
}

/// A report of [`plan`] in which `host-deadline` could not run.
pub fn report() -> LhpReport {
    let plan = plan();
    let excluded = |failed| CellRuns {
        exclusion: Some(Exclusion {
            reason: "needs <root>".to_owned(),
            failed,
        }),
        ..cell_runs(&[9])
    };
    let runs = [
        cell_runs(&[10, 20]),
        excluded(false),
        cell_runs(&[50, 150]),
        cell_runs(&[5]),
        excluded(true),
        cell_runs(&[40]),
        cell_runs(&[200]),
    ];
    LhpReport::new(&plan, &runs, Duration::from_secs(3), false)
}

#[test]
fn ratios_are_of_medians_to_the_reference_and_to_each_baseline() {
    let report = report();
    let row = &report.results[1];
    assert_eq!(name(&row.cell.policy), "baton");
    assert_eq!(
        row.acq_per_cpu_s,
        Spread {
            median: 100,
            min: 50,
            max: 150
        }
    );
    assert_eq!(row.ratio_to_reference, Some(0.5));
    assert_eq!(
        row.ratio_to,
        BTreeMap::from([("host-spin".to_owned(), 6.6667)])
    );
    assert_eq!((row.vcpus, row.runs, row.disturbed), (8, 2, 1));
    assert_eq!((row.cpu_share, row.switches_per_acq), (0.5, 1.0));
    assert_eq!(row.acq_per_s_per_host_cpu, 50);
    let reference = report.reference(Lock::Ticket).expect("measured");
    assert_eq!(reference.acq_per_cpu_s.median, 200);
    assert_eq!((reference.runs, reference.disturbed), (1, 1));
    assert!(report.reference(Lock::Mcs).is_none());
}

#[test]
fn excluded_cells_have_a_reason_and_no_row() {
    let report = report();
    assert_eq!(report.results.len(), 4);
    assert_eq!(report.skipped.len(), 2);
    assert!(!report.is_good());
    let reference_has_no_row = report.row(Cell::reference_of(Lock::Ticket)).is_none();
    assert!(reference_has_no_row);
    assert_eq!(report.disturbed_runs, 2);
}

#[test]
fn interrupted_report_without_runs_has_no_rows() {
    let plan = plan();
    let nothing = vec![CellRuns::default(); plan.cells().len()];
    let report = LhpReport::new(&plan, &nothing, Duration::ZERO, true);
    assert!(report.results.is_empty() && report.skipped.is_empty() && report.references.is_empty());
    assert!(!report.is_good());
}
