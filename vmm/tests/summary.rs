//! The summary at the end of a run.

mod common;

use std::time::{Duration, Instant};

use serde_json::Value;

use common::{baton, finish, number, start};

/// Whether SIGSTOP has reached every thread of `pid`.
fn all_threads_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind the name, which stands in brackets.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

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
        // This fails if anything else stands there.
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
    let child = start(&[
        "run",
        "--summary",
        "json",
        "--control",
        socket,
        "--cmdline",
        "workload=hog seconds=0",
    ]);
    let pid = i32::try_from(child.id()).expect("process id");
    // SAFETY: no memory is involved, and the child is not yet waited for, so the id is its own.
    let send = |signal| assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    let runs = || {
        let seen = baton(&["top", "--once", "--json", "--socket", socket]);
        let seen: Option<Value> = serde_json::from_str(&seen.stdout).ok();
        seen.is_some_and(|seen| seen["vcpus"][0]["state"] == "running")
    };
    let patience = Instant::now() + Duration::from_secs(60);
    while !runs() {
        assert!(Instant::now() < patience, "the guest does not run");
    }
    send(libc::SIGSTOP);
    while !all_threads_stopped(pid) {
        std::thread::yield_now();
    }
    // They are stopped for at least that long.
    std::thread::sleep(STOPPED);
    send(libc::SIGCONT);
    send(libc::SIGTERM);
    let summary = finish(child).summary();
    let vcpu = &summary["guests"][0]["vcpus"][0];
    let took = number(vcpu, "host_steal_ns");
    assert!(u128::from(took) >= STOPPED.as_nanos(), "{vcpu}");
    assert!(
        number(vcpu, "waited_ns") < took,
        "alone in its pool it waited for nobody: {vcpu}"
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
    assert!(waited < throttled, "nobody else wants the CPU: {vcpu}");
}
