//! Guests are notified of time that was taken from their vCPUs, because their watchdogs would otherwise take
//! it for a hang.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{Running, baton, number, vcpus};

/// Longest duration of a run.
const LIMIT: &str = "60s";

/// `baton run` of the guest that waits for the notification.
fn command(flags: &[&str], cmdline: &str) -> Command {
    let cmdline = format!("workload=stopped {cmdline}");
    let mut words = vec!["run", "--duration", LIMIT, "--control", "off"];
    words.extend(["--summary", "json", "--cmdline", &cmdline]);
    words.extend(flags);
    common::command(&words)
}

/// The guest of a summary, which must have ended well.
fn guest(summary: &Value) -> &Value {
    let guest = &summary["guests"][0];
    assert_eq!(guest["exit_code"], 0, "{guest}");
    guest
}

/// The number of notifications of each vCPU.
fn notifications(guest: &Value) -> Vec<u64> {
    vcpus(guest)
        .map(|vcpu| vcpu["results"]["iterations"].as_u64().unwrap_or(0))
        .collect()
}

/// Stops `run` for a little more than a second, and continues it.
fn stop_for_a_second(run: &mut Running) {
    run.signal(libc::SIGSTOP);
    let stat = format!("/proc/{}/stat", run.id());
    let stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    run.until("the process is stopped", stopped);
    // This is the gap itself, and does not wait for anything.
    let from = Instant::now();
    while from.elapsed() < Duration::from_millis(1_200) {
        std::thread::sleep(Duration::from_millis(100));
    }
    run.signal(libc::SIGCONT);
}

/// Runs the guest, stops the process once, and returns the summary of the run.
fn summary_of_a_run_that_is_stopped(flags: &[&str], cmdline: &str) -> Value {
    let mut child = Running::spawn(&mut command(flags, cmdline));
    // With a summary as JSON on standard output, the guest prints to standard error.
    let mut console = BufReader::new(child.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("waits to be stopped") {
        assert!(console.read_line(&mut text).expect("output") > 0, "{text}");
    }
    stop_for_a_second(&mut child);
    console.read_to_string(&mut text).expect("output");
    let ran = child.finish();
    assert_eq!(ran.code, 0, "{text}");
    ran.summary()
}

#[test]
fn a_process_that_was_stopped_tells_vcpus_that_compute() {
    for flags in [
        &["--cpus", "2", "--vcpu-threads", "off"][..],
        &["--cpus", "2", "--vcpu-threads", "on"],
        // More vCPUs than host CPUs: some run, and some are runnable.
        &["--cpus", "3", "--host-cpus", &common::first_cpu()],
        &["--cpus", "2", "--sched", "host"],
    ] {
        let summary = summary_of_a_run_that_is_stopped(flags, "count=1 seconds=0");
        let counts = notifications(guest(&summary));
        assert!(
            counts.iter().all(|&count| count == 1),
            "{flags:?}: {counts:?}"
        );
    }
}

#[test]
fn a_process_that_was_stopped_tells_vcpus_that_sleep() {
    for flags in [
        &["--cpus", "2", "--vcpu-threads", "off"][..],
        &["--cpus", "2", "--vcpu-threads", "on"],
        &["--cpus", "2", "--sched", "host"],
    ] {
        // The timers are due after the stop, so no vCPU wakes late.
        let cmdline = "count=1 seconds=0 wait=halt period=3s";
        let summary = summary_of_a_run_that_is_stopped(flags, cmdline);
        let counts = notifications(guest(&summary));
        assert!(
            counts.iter().all(|&count| count == 1),
            "{flags:?}: {counts:?}"
        );
    }
}

#[test]
fn a_vcpu_that_is_throttled_for_long_is_told_each_time() {
    let mut command = command(&["--reservation", "50ms/2s,hard"], "count=2 seconds=0");
    let ran = Running::spawn(&mut command).finish();
    assert_eq!(notifications(guest(&ran.summary())), [2]);
}

#[test]
fn sleep_and_short_gaps_are_not_told() {
    let short = ["--cpus", "2", "--reservation", "5ms/100ms,hard"];
    for (flags, cmdline) in [
        (&short[..], "seconds=3"),
        (&["--cpus", "2"], "seconds=3 wait=halt period=1.4s"),
        (&["--vcpu-threads", "on"], "seconds=3 wait=halt period=1.4s"),
    ] {
        // The guest accepts a notification if the host itself took a second from a vCPU.
        let ran = Running::spawn(&mut command(flags, cmdline)).finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("stopped: right"), "{ran:?}");
    }
}

#[test]
fn a_guest_without_a_clock_misses_nothing() {
    let ran = baton(&[
        "run",
        "--reservation",
        "20ms/1200ms,hard",
        "--summary",
        "json",
        "--cmdline",
        "workload=hog seconds=2",
    ]);
    let summary = ran.summary();
    let guest = guest(&summary);
    assert!(
        vcpus(guest).all(|vcpu| number(vcpu, "throttled_ns") > 0),
        "{guest}"
    );
}
