//! Reservations on hosts that notice the halt of a vCPU late, because there are no perf events.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

mod common;

/// From `linux/capability.h`.
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;

/// Runs `baton run` with `flags` as a user who may not use perf events of the kernel. `None` if every user of
/// this host may use them.
fn without_perf_events(flags: &[&str]) -> Option<Output> {
    let words = ["run", "--cmdline", "workload=boot", "--control", "off"];
    command_without_perf_events(&[&words[..], flags].concat())
}

/// The same of a command of these `words`.
fn command_without_perf_events(words: &[&str]) -> Option<Output> {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    if paranoid.trim().parse::<i32>().ok()? < 2 {
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    common::own_no_cpus(&mut command);
    command.args(words);
    // SAFETY: only prctl with integers is called between fork and exec. It fails for an ordinary user,
    // who has no such capability.
    unsafe {
        command.pre_exec(|| {
            for capability in [CAP_SYS_ADMIN, CAP_PERFMON] {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
    Some(common::output(&mut command))
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const RESERVATION: [&str; 2] = ["--reservation", "1ms/10ms"];

#[test]
fn without_perf_events_a_reservation_is_refused_with_the_way_to_get_them() {
    for threads in ["on", "off"] {
        let flags = [&RESERVATION[..], &["--vcpu-threads", threads]].concat();
        let Some(ran) = without_perf_events(&flags) else {
            return;
        };
        let text = error(&ran);
        assert_eq!(ran.status.code(), Some(125), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            "guest guest has a reservation",
            "CAP_PERFMON",
            "--late-halts allow",
            "1 ms",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_reservation_of_a_guest_in_a_process_of_its_own_is_refused_too() {
    let words = [
        "vm",
        // The host may permit root without capabilities no sandbox.
        "--no-sandbox",
        "--pool",
        "/nonexistent/pool",
        "--reservation",
        "1ms/10ms",
    ];
    let Some(ran) = command_without_perf_events(&words) else {
        return;
    };
    let text = error(&ran);
    assert_eq!(ran.status.code(), Some(125), "{text}");
    assert!(text.contains("guest guest has a reservation"), "{text}");
    let accepted = [&words[..], &["--late-halts", "allow"]].concat();
    let ran = command_without_perf_events(&accepted).expect("as before");
    let text = error(&ran);
    assert!(text.contains("no pool can be reached"), "{text}");
}

#[test]
fn without_perf_events_a_reservation_runs_if_the_user_accepts_late_halts() {
    for threads in ["on", "off"] {
        let flags = [
            &RESERVATION[..],
            &["--late-halts", "allow", "--vcpu-threads", threads],
        ]
        .concat();
        let Some(ran) = without_perf_events(&flags) else {
            return;
        };
        assert_eq!((ran.status.code(), &*error(&ran)), (Some(0), ""));
    }
}

#[test]
fn without_perf_events_and_reservations_a_run_goes_on_with_a_line_of_warning() {
    let Some(ran) = without_perf_events(&[]) else {
        return;
    };
    let text = error(&ran);
    assert_eq!(ran.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("warning") && text.contains("CAP_PERFMON"),
        "{text}"
    );
}

#[test]
fn without_perf_events_a_run_under_the_hosts_scheduler_is_as_before() {
    if let Some(ran) = without_perf_events(&["--sched", "host"]) {
        assert_eq!((ran.status.code(), &*error(&ran)), (Some(0), ""));
    }
}
