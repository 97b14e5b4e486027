//! A guest is told of time that was taken from its vCPUs, by which its watchdogs would blame it.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{baton, number, vcpus};

/// Ends a run that waits for ever.
const LIMIT: &str = "60s";

/// `baton run` of the guest that waits to be told.
fn command(flags: &[&str], cmdline: &str) -> Command {
    let cmdline = format!("workload=stopped {cmdline}");
    let mut words = vec!["run", "--duration", LIMIT, "--control", "off"];
    words.extend(["--summary", "json", "--cmdline", &cmdline]);
    words.extend(flags);
    common::command(&words)
}

/// The guest of a summary, which has ended well.
fn guest(summary: &Value) -> &Value {
    let guest = &summary["guests"][0];
    assert_eq!(guest["exit_code"], 0, "{guest}");
    guest
}

/// How often each vCPU was told.
fn told(guest: &Value) -> Vec<u64> {
    vcpus(guest)
        .map(|vcpu| vcpu["results"]["iterations"].as_u64().unwrap_or(0))
        .collect()
}

fn signal(child: &Child, signal: libc::c_int) {
    let pid = i32::try_from(child.id()).expect("process id");
    // SAFETY: no memory is involved, and the child is not yet waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Stops `child`, for a little more than a second, and lets it go on.
fn stop_for_a_second(child: &Child) {
    signal(child, libc::SIGSTOP);
    let stat = format!("/proc/{}/stat", child.id());
    let stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    while !stopped() {
        std::thread::yield_now();
    }
    // Nothing is waited for here: this is the gap.
    let from = Instant::now();
    while from.elapsed() < Duration::from_millis(1_200) {
        std::thread::sleep(Duration::from_millis(100));
    }
    signal(child, libc::SIGCONT);
}

/// Runs the guest until the process has been stopped once, and gives its summary.
fn summary_of_a_run_that_is_stopped(flags: &[&str], cmdline: &str) -> Value {
    let mut child = command(flags, cmdline).spawn().expect("baton starts");
    // With a summary as JSON on standard output, the guest prints to standard error.
    let mut console = BufReader::new(child.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("waits to be stopped") {
        assert!(console.read_line(&mut text).expect("output") > 0, "{text}");
    }
    stop_for_a_second(&child);
    console.read_to_string(&mut text).expect("output");
    let ran = common::finish(child);
    assert_eq!(ran.code, 0, "{text}");
    ran.summary()
}

#[test]
fn a_process_that_was_stopped_tells_vcpus_that_compute() {
    for flags in [
        &["--cpus", "2", "--vcpu-threads", "off"][..],
        &["--cpus", "2", "--vcpu-threads", "on"],
        // More vCPUs than CPUs: some run, some wait for their turn.
        &["--cpus", "3", "--host-cpus", &common::first_cpu()],
        &["--cpus", "2", "--sched", "host"],
    ] {
        let summary = summary_of_a_run_that_is_stopped(flags, "count=1 seconds=0");
        let told = told(guest(&summary));
        assert!(told.iter().all(|&told| told == 1), "{flags:?}: {told:?}");
    }
}

#[test]
fn a_process_that_was_stopped_tells_vcpus_that_sleep() {
    for flags in [
        &["--cpus", "2", "--vcpu-threads", "off"][..],
        &["--cpus", "2", "--vcpu-threads", "on"],
        &["--cpus", "2", "--sched", "host"],
    ] {
        // The timer is set for later than the stop: nobody is late.
        let cmdline = "count=1 seconds=0 wait=halt period=3s";
        let summary = summary_of_a_run_that_is_stopped(flags, cmdline);
        let told = told(guest(&summary));
        assert!(told.iter().all(|&told| told == 1), "{flags:?}: {told:?}");
    }
}

#[test]
fn a_vcpu_that_is_throttled_for_long_is_told_each_time() {
    let mut command = command(&["--reservation", "50ms/2s,hard"], "count=2 seconds=0");
    let ran = common::finish(command.spawn().expect("baton starts"));
    assert_eq!(told(guest(&ran.summary())), [2]);
}

#[test]
fn sleep_and_short_gaps_are_not_told() {
    let short = ["--cpus", "2", "--reservation", "5ms/100ms,hard"];
    for (flags, cmdline) in [
        (&short[..], "seconds=3"),
        (&["--cpus", "2"], "seconds=3 wait=halt period=1.4s"),
        (&["--vcpu-threads", "on"], "seconds=3 wait=halt period=1.4s"),
    ] {
        // Where this machine has taken a second from it itself, the guest knows.
        let ran = common::finish(command(flags, cmdline).spawn().expect("baton starts"));
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
