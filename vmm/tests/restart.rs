//! Guests start again: after a reset of their own, and by their restart policy.

mod common;

use std::io::{BufRead, BufReader};

use serde_json::Value;

use common::reset_kernel::{RESET, TRIPLE_FAULT, WRITES, kernel};
use common::{baton, file, number, start};

/// Runs the guests of `text` until one has printed `up` four times, and requests the end. Returns the guests of the
/// summary and the exit status. The last of the starts may be cut before its end.
fn after_four_starts(name: &str, text: &str) -> (Value, i32) {
    let config = file(name, text.as_bytes());
    let mut run = start(&["run", &config.to_string_lossy(), "--summary", "json"]);
    let mut output = BufReader::new(run.stderr.take().expect("a pipe"));
    let mut line = String::new();
    let mut starts = 0;
    while starts < 4 {
        line.clear();
        assert_ne!(output.read_line(&mut line).expect("text"), 0, "{starts}");
        starts += usize::from(line.trim_end().ends_with("up"));
    }
    run.signal(libc::SIGINT);
    let ran = run.finish();
    (ran.summary()["guests"].clone(), ran.code)
}

#[test]
fn a_reset_ends_the_guest_unless_it_is_to_start_again() {
    let kernel = kernel("reset-ends.elf", RESET);
    for flags in [
        &[][..],
        &["--on-reboot", "end"],
        &["--restart", "on-failure"],
    ] {
        let mut words = vec!["run", "--kernel", &kernel, "--summary", "json"];
        words.extend(flags);
        let ran = baton(&words);
        assert_eq!(ran.code, 0, "{ran:?}");
        let guest = &ran.summary()["guests"][0];
        assert_eq!(guest["end"], "reset itself");
        assert_eq!(
            (&guest["exit_code"], &guest["restarts"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn a_guest_that_resets_itself_starts_again_with_its_devices_and_claims_while_others_go_on() {
    let disk = file("reset.img", &[0; 1 << 20]);
    let text = format!(
        "[[guest]]\nname = \"resets\"\nkernel = \"{}\"\non_reboot = \"restart\"\ndisks = [\"{}\"]\n\
         reservation = \"1ms/20ms,hard\"\n\
         [[guest]]\nname = \"other\"\ncmdline = \"workload=hog seconds=0\"\nreservation = \"1ms/20ms,soft\"\n",
        kernel("reset-again.elf", RESET),
        disk.display()
    );
    let (guests, code) = after_four_starts("reset-again.toml", &text);
    assert_eq!(code, 0, "{guests}");
    let [resets, other] = [&guests[0], &guests[1]];
    assert_eq!(
        (&resets["name"], &other["name"]),
        (&"resets".into(), &"other".into())
    );
    let restarts = number(resets, "restarts");
    assert!(restarts >= 3, "{resets}");
    // The numbers are those of all starts, of which the last may have been interrupted.
    let writes = number(&resets["vcpus"][0]["exits"], "port_out");
    assert!(
        (restarts * WRITES..=(restarts + 1) * WRITES).contains(&writes),
        "{resets}"
    );
    assert!(number(&resets["vcpus"][0], "ran_ns") > 0);
    assert_eq!(other["end"], "stopped when the run ended");
    assert_eq!(other["restarts"], 0);
}

#[test]
fn a_triple_fault_is_a_reset_and_a_failure() {
    let kernel = kernel("fault.elf", TRIPLE_FAULT);
    for key in [
        "on_reboot = \"restart\"",
        "restart = \"on-failure\"",
        "restart = \"always\"",
    ] {
        let text = format!("[[guest]]\nkernel = \"{kernel}\"\n{key}\n");
        let (guests, _) = after_four_starts("fault.toml", &text);
        assert!(number(&guests[0], "restarts") >= 3, "{guests}");
    }
}

#[test]
fn the_run_ends_when_a_guest_with_a_policy_has_ended_for_good() {
    let ran = baton(&[
        "run",
        "--restart",
        "on-failure",
        "--summary",
        "json",
        "--cmdline",
        "workload=boot",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.summary()["guests"][0]["restarts"], 0);
}

#[test]
fn guests_under_the_hosts_scheduler_cannot_start_again() {
    for flags in [["--restart", "always"], ["--on-reboot", "restart"]] {
        let mut words = vec!["run", "--sched", "host"];
        words.extend(flags);
        let ran = baton(&words);
        let sentence = ran.one_sentence();
        assert!(
            sentence.contains("--sched host does not support guests that start again"),
            "{sentence}"
        );
    }
}
