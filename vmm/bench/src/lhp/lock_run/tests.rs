use super::*;
use crate::lhp::axes::{Load, Lock, Policy};
use baton_abi::testdev::{RESULT_COUNTER, RESULT_WAIT_BUCKET, RESULT_WAIT_MAX_NS};
use baton_abi::wait_buckets::last_ns;
use baton_host::runner::VcpuAccount;
use baton_machine::GuestEnd;

const CELL: Cell = Cell {
    lock: Lock::Tas,
    load: Load::Hog,
    policy: Policy::Baton,
};

fn vcpu(ran_ns: u64, results: &[(u32, u64)]) -> VcpuSummary {
    VcpuSummary {
        account: VcpuAccount {
            ran_ns,
            switches: 3,
            ..VcpuAccount::default()
        },
        results: results.iter().copied().collect(),
        ..VcpuSummary::default()
    }
}

fn lock_guest(counter: u64) -> GuestSummary {
    let vcpus = vec![
        vcpu(
            600_000,
            &[
                (RESULT_ACQUISITIONS, 100),
                (RESULT_COUNTER, counter),
                (RESULT_ELAPSED_NS, 1_000_000),
                (RESULT_WAIT_SUM_NS, 150_000),
                (RESULT_WAIT_MAX_NS, 5_000),
                (RESULT_WAIT_BUCKET + 80, 100),
            ],
        ),
        vcpu(
            400_000,
            &[
                (RESULT_ACQUISITIONS, 50),
                (RESULT_ELAPSED_NS, 900_000),
                (RESULT_WAIT_SUM_NS, 900_000),
                (RESULT_WAIT_MAX_NS, 9_000),
                (RESULT_WAIT_BUCKET + 100, 50),
            ],
        ),
    ];
    GuestSummary::new("lock0", &GuestEnd::Exited(0), 0, vcpus)
}

fn hog() -> GuestSummary {
    let vcpus = vec![vcpu(7_000_000, &[])];
    GuestSummary::new("hog", &GuestEnd::Exited(0), 0, vcpus)
}

fn outcome(guests: Vec<GuestSummary>, elapsed_ns: u64) -> RunOutcome {
    let summary = RunSummary {
        guests,
        elapsed_ns,
        ..RunSummary::default()
    };
    judge(&CELL, &summary, 2, Duration::from_secs(1), Some(120))
}

#[test]
fn only_the_guests_with_the_lock_count() {
    let RunOutcome::Measured(run) = outcome(vec![lock_guest(150), hog()], 1) else {
        panic!("measured");
    };
    assert_eq!((run.acquisitions, run.ran_ns), (150, 1_000_000));
    assert_eq!((run.pool_ns, run.switches), (2_000_000, 6));
    assert_eq!(run.waits.max_ns, 9_000);
    assert_eq!(run.waits.percentile(66.0), last_ns(80));
    assert_eq!(run.waits.percentile(67.0), last_ns(100));
    assert_eq!(run.fairness, 0.5);
    assert!(run.is_disturbed());
}

#[test]
fn waiting_costs_no_more_than_the_wait_or_what_work_leaves() {
    let RunOutcome::Measured(run) = outcome(vec![lock_guest(150), hog()], 1) else {
        panic!("measured");
    };
    assert_eq!(run.spin_ns, 150_000 + (400_000 - 50 * 4_000));
}

#[test]
fn wrong_counter_is_a_failure() {
    assert!(matches!(
        outcome(vec![lock_guest(149), hog()], 1),
        RunOutcome::Failed(_)
    ));
}

#[test]
fn guest_that_failed_is_named() {
    let failed = GuestSummary::new("hog", &GuestEnd::Exited(3), 0, Vec::new());
    assert_eq!(
        outcome(vec![lock_guest(150), failed], 1),
        RunOutcome::Failed("guest hog: failed with code 3".to_owned())
    );
}

#[test]
fn stopped_run_is_a_failure_only_after_the_time_limit() {
    let stopped = || GuestSummary::new("hog", &GuestEnd::Killed, 0, Vec::new());
    assert_eq!(
        outcome(vec![lock_guest(150), stopped()], 5),
        RunOutcome::Interrupted
    );
    assert!(matches!(
        outcome(vec![lock_guest(150), stopped()], 41_000_000_000),
        RunOutcome::Failed(_)
    ));
}
