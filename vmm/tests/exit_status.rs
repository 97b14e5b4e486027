//! The exit statuses of `baton`: `docs/exit-status.md`.

mod common;

use common::{FAILED, GUESTS_FAILED, baton, file};

/// The built-in guest under the host's scheduler, with this command line.
fn guest(cmdline: &str) -> common::Ran {
    baton(&["run", "--sched", "host", "--cmdline", cmdline])
}

#[test]
fn a_guest_that_ends_well_gives_0_and_one_that_fails_gives_its_code() {
    assert_eq!(guest("workload=boot").code, 0);
    let usage = guest("no-such-word=1");
    assert_eq!(usage.code, baton_abi::testdev::EXIT_USAGE as i32);
    assert!(usage.stderr.contains("failed with code 2"), "{usage:?}");
}

#[test]
fn a_guest_that_gives_no_code_and_several_that_fail_are_not_taken_for_batons_own_failure() {
    let fault = guest("workload=triplefault");
    assert_eq!(fault.code, GUESTS_FAILED, "{fault:?}");
    let two = file(
        "two-fail.toml",
        b"sched = \"host\"\n[[guest]]\ncount = 2\ncmdline = \"no-such-word=1\"\n",
    );
    let two = baton(&["run", &two.to_string_lossy()]);
    assert_eq!(two.code, GUESTS_FAILED, "{two:?}");
}

#[test]
fn what_is_wrong_with_the_command_line_or_the_configuration_is_batons_own_failure() {
    for args in [
        &["run", "--no-such-flag"][..],
        &["no-such-command"],
        &[],
        &["run", "--kernel", "/nowhere/vmlinux"],
        &["run", "/nowhere/host.toml"],
        &["bench", "lhp", "--runs", "0"],
        &["top", "--socket", "/nowhere/baton.sock", "--once"],
        &["sim", "no-such-scenario"],
    ] {
        let ran = baton(args);
        assert_eq!(ran.code, FAILED, "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_failure_and_the_help_of_run_names_the_statuses() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let ran = baton(args);
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
    }
    let help = baton(&["run", "--help"]).stdout;
    for status in ["123", "125"] {
        assert!(help.contains(status), "{help}");
    }
}
