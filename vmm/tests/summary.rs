//! The summary at the end of a run.

mod common;

use std::time::Duration;

use serde_json::Value;

use common::{all_threads_stopped, baton, number, start};

#[test]
fn a_summary_as_json_is_alone_on_standard_output_and_the_guests_print_to_standard_error() {
    for sched in ["baton", "host"] {
        let ran = baton(&[
            "run",
            "--sched",
            sched,
            "--summary",
            "json",
            "--cmdline",
            "lock=tas acquisitions=10",
        ]);
        assert_eq!(ran.code, 0, "{ran:?}");
        // This fails if standard output has anything else.
        assert_eq!(ran.summary()["guests"][0]["workload"]["acquisitions"], 10);
        assert!(ran.stderr.contains("counter right"), "{ran:?}");
    }
}

#[test]
fn a_timeline_beside_a_summary_as_json_goes_to_standard_error() {
    let ran = baton(&[
        "run",
        "--timeline",
        "--summary",
        "json",
        "--cmdline",
        "workload=boot",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.summary()["sched"], "baton");
    assert!(
        ran.stderr.contains("No vCPU ran on another's budget"),
        "{ran:?}"
    );
}

#[test]
fn a_summary_as_text_stands_below_what_the_guests_print() {
    let ran = baton(&["run", "--cmdline", "workload=boot"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
    let printed = ran.stdout.find("is up").expect("the line of the guest");
    let summary = ran.stdout.find("on host CPUs").expect("the summary");
    assert!(printed < summary, "{ran:?}");
}

#[test]
fn time_that_the_host_took_from_a_vcpu_is_told_and_is_no_wait_for_a_cpu_of_the_pool() {
    const STOPPED: Duration = Duration::from_millis(300);
    let socket = std::env::temp_dir().join(format!("baton-{}-robbed.sock", std::process::id()));
    let socket = socket.to_str().expect("utf-8");
    let mut run = start(&[
        "run",
        "--summary",
        "json",
        "--control",
        socket,
        "--cmdline",
        "workload=hog seconds=0",
    ]);
    let pid = run.pid();
    run.until("the vCPU runs", || {
        let top = baton(&["top", "--once", "--json", "--socket", socket]);
        let snapshot: Option<Value> = serde_json::from_str(&top.stdout).ok();
        snapshot.is_some_and(|snapshot| snapshot["vcpus"][0]["state"] == "running")
    });
    run.signal(libc::SIGSTOP);
    run.until("all threads are stopped", || all_threads_stopped(pid));
    // This is the gap itself: the threads are stopped for at least that long.
    std::thread::sleep(STOPPED);
    run.signal(libc::SIGCONT);
    run.signal(libc::SIGTERM);
    let summary = run.finish().summary();
    let vcpu = &summary["guests"][0]["vcpus"][0];
    let took = number(vcpu, "host_steal_ns");
    assert!(u128::from(took) >= STOPPED.as_nanos(), "{vcpu}");
    assert!(
        number(vcpu, "waited_ns") < took,
        "it is the only vCPU of its pool, so it never waits for a CPU: {vcpu}"
    );
}

#[test]
fn a_wait_for_a_budget_is_told_apart_from_a_wait_for_a_cpu() {
    let ran = baton(&[
        "run",
        "--reservation",
        "5ms/100ms,hard",
        "--host-cpus",
        "0",
        "--summary",
        "json",
        "--cmdline",
        "workload=hog seconds=0.3",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let vcpu = &ran.summary()["guests"][0]["vcpus"][0];
    let (waited, throttled) = (number(vcpu, "waited_ns"), number(vcpu, "throttled_wait_ns"));
    assert!(throttled > 0, "{vcpu}");
    assert!(throttled <= number(vcpu, "throttled_ns"), "{vcpu}");
    assert!(waited < throttled, "no other vCPU needs the CPU: {vcpu}");
}
