//! `--sched round-robin`: another policy on the same executors, on real KVM.

mod common;

use common::{baton, file, number, sum, vcpus};
use serde_json::Value;

/// Two guests with four times as many vCPUs as host CPUs, one of which halts in KVM.
const GUESTS: &str = "\
[[guest]]
name = \"spins\"
cpus = 4
cmdline = \"lock=ticket acquisitions=400 hints=on\"
[[guest]]
name = \"sleeps\"
cpus = 4
cmdline = \"lock=mutex acquisitions=200 idle=hlt hints=on\"
";

/// Runs the guests of a file in slices of 1 ms, with further flags.
fn run(name: &str, text: &str, flags: &[&str]) -> Value {
    let config = file(name, text.as_bytes());
    let path = config.to_string_lossy();
    let mut words = vec!["run", &*path, "--sched", "round-robin", "--slice", "1ms"];
    words.extend(["--summary", "json"]);
    words.extend(flags);
    let ran = baton(&words);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.summary()
}

#[test]
fn locks_hold_and_nothing_is_donated_in_both_forms_of_running_a_vcpu() {
    for threads in ["off", "on"] {
        let name = format!("round-robin-{threads}.toml");
        let summary = run(&name, GUESTS, &["--vcpu-threads", threads]);
        assert_eq!(summary["sched"], "round-robin");
        assert_eq!(summary["proxy"], false);
        for guest in summary["guests"].as_array().expect("guests") {
            assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
            assert_eq!(sum(guest, "proxied"), 0, "{guest}");
            let charged = sum(guest, "ran_ns") + sum(guest, "elsewhere_ns");
            assert_eq!(sum(guest, "charged_ns"), charged, "{guest}");
        }
    }
}

#[test]
fn vcpus_that_always_run_take_turns_on_one_host_cpu() {
    let hogs = "[[guest]]\nname = \"hogs\"\ncpus = 3\ncmdline = \"workload=hog seconds=0.3\"\n";
    let cpu = common::first_cpu();
    let summary = run("round-robin-hogs.toml", hogs, &["--host-cpus", &cpu]);
    for vcpu in vcpus(&summary["guests"][0]) {
        assert!(number(vcpu, "preemptions") > 0, "{summary}");
    }
}

#[test]
fn a_reservation_is_refused_with_what_to_do() {
    let path = file(
        "round-robin-reserved.toml",
        b"sched = \"round-robin\"\n[[guest]]\nname = \"db\"\nreservation = \"1ms/10ms\"\n",
    );
    let ran = baton(&["run", &path.to_string_lossy()]);
    let sentence = ran.one_sentence();
    assert!(
        sentence.contains("guest db, vCPU 0: --sched round-robin"),
        "{sentence}"
    );
    assert!(sentence.contains("give --sched baton"), "{sentence}");
}
