//! `--require-delivery`: a reservation that was not delivered is a failure of the run.

mod common;

use common::{baton, first_cpu, signal_when_ready, start};

/// The exit status for it (`docs/exit-status.md`).
const UNDELIVERED: i32 = 126;

#[test]
fn a_run_that_the_host_stopped_for_several_periods_has_not_delivered_its_reservation() {
    let cpu = first_cpu();
    let mut arguments = vec!["run", "--host-cpus", &cpu, "--cmdline", "seconds=600"];
    arguments.extend(["--reservation", "5ms/10ms,hard", "--require-delivery"]);
    let mut run = start(&arguments);
    // Nothing handles this signal, so it shows only that the vCPU runs.
    signal_when_ready(&mut run, libc::SIGSTOP);
    let stopped = baton_os::sys::monotonic_ns();
    run.until("several periods have passed", || {
        baton_os::sys::monotonic_ns() - stopped > 50_000_000
    });
    run.signal(libc::SIGCONT);
    run.signal(libc::SIGINT);
    let ran = run.finish();
    assert_eq!(ran.code, UNDELIVERED, "{ran:?}");
    let complaints = ran.complaints();
    let [line] = complaints[..] else {
        panic!("{ran:?}");
    };
    let expected = "baton: guest guest, vCPU 0: its reservation was not delivered by ";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn a_run_that_promises_nothing_has_delivered_and_other_schedulers_refuse_the_flag() {
    let cpu = first_cpu();
    let plain = [
        "run",
        "--host-cpus",
        &cpu,
        "--duration",
        "50ms",
        "--require-delivery",
    ];
    let ran = baton(&plain);
    assert_eq!((ran.code, ran.complaints().len()), (0, 0), "{ran:?}");
    let refused = baton(&["run", "--sched", "host", "--require-delivery"]);
    assert!(
        refused
            .one_sentence()
            .contains("does not support --require-delivery"),
        "{refused:?}"
    );
}
