//! `--require-delivery`: a reservation that was not delivered is a failure of the run.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::{all_threads_stopped, baton, first_cpu, number, start};

/// The exit status for it (`docs/exit-status.md`).
const UNDELIVERED: i32 = 126;

#[test]
fn a_run_that_the_host_stopped_has_not_delivered_its_reservation_and_reports_what_was_lost() {
    const STOPPED: Duration = Duration::from_millis(200);
    let cpu = first_cpu();
    let socket = std::env::temp_dir().join(format!("baton-{}-stopped.sock", std::process::id()));
    let socket = socket.to_str().expect("utf-8");
    let mut arguments = vec!["run", "--host-cpus", &cpu, "--summary", "json"];
    arguments.extend(["--control", socket]);
    arguments.extend(["--cmdline", "workload=hog seconds=0"]);
    arguments.extend(["--reservation", "5ms/10ms,hard", "--require-delivery"]);
    let mut run = start(&arguments);
    let pid = run.pid();
    run.until("several budgets are delivered", || {
        let top = baton(&["top", "--once", "--json", "--socket", socket]);
        let snapshot: Option<Value> = serde_json::from_str(&top.stdout).ok();
        let delivered = snapshot.and_then(|s| s["vcpus"][0]["delivered_ns"].as_u64());
        delivered.is_some_and(|delivered| delivered > 15_000_000)
    });
    run.signal(libc::SIGSTOP);
    run.until("all threads are stopped", || all_threads_stopped(pid));
    // This is the stop itself. Deadlines pass in it, whether the vCPU had a CPU, waited for one or was throttled.
    std::thread::sleep(STOPPED);
    run.signal(libc::SIGCONT);
    run.signal(libc::SIGINT);
    let ran = run.finish();
    assert_eq!(ran.code, UNDELIVERED, "{ran:?}");
    let complaints = ran.complaints();
    let expected = "baton: guest guest, vCPU 0: its reservation was not delivered by ";
    assert!(
        complaints.iter().any(|line| line.starts_with(expected)),
        "{complaints:?}"
    );
    let summary = ran.summary();
    let vcpu = &summary["guests"][0]["vcpus"][0];
    // The whole periods of the stop: without the one in which it began and the one in which it ended.
    assert!(number(vcpu, "deadline_misses") >= 18, "{vcpu}");
    let lost = number(vcpu, "lost_to_host_ns") + number(vcpu, "lost_to_overcommit_ns");
    assert!(lost >= 18 * 5_000_000, "{vcpu}");
    let kept = number(vcpu, "delivered_ns") + number(vcpu, "undemanded_ns");
    let pending = number(vcpu, "promised_ns") - lost - kept;
    assert!(pending <= 5_000_000, "only the budget at hand: {vcpu}");
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
