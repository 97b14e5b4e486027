//! `baton pool` as a process, and the commands that use it.

mod common;

use std::path::Path;

use baton_os::cpu_owner::VARIABLE;
use common::place::Place;
use common::{Running, command, first_cpu};
use serde_json::Value;

#[test]
fn a_pool_is_ready_answers_its_commands_and_ends_on_a_signal_without_a_trace() {
    let place = Place::new("commands");
    let pool = place.start(&["--log-format", "json"]);
    let status = place.run(&["pool", "status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["pid"], Value::from(pool.pid()));
    assert_eq!(
        place.run(&["list"]).stdout.lines().count(),
        1,
        "a table without guests"
    );
    let top = place.run(&["top", "--once"]);
    assert!(top.stdout.contains("0 vCPUs on 1 host CPUs"), "{top:?}");
    for words in [
        &["show", "db"][..],
        &["pause", "db"],
        &["console", "db"],
        &["set", "db", "--weight", "5"],
    ] {
        let missing = place.run(words);
        assert_eq!(
            missing.one_sentence(),
            "baton: the pool has no guest db; name one of its guests"
        );
    }
    pool.signal(libc::SIGTERM);
    let ended = pool.finish();
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in ended.stderr.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert!(
            event["timestamp"].is_string() && event["level"] == "INFO",
            "{line}"
        );
    }
    assert!(!Path::new(&place.pool()).join("api.sock").exists());
    assert!(!Path::new(&place.pool()).join("link.sock").exists());
    let refused = place.run(&["list"]);
    assert!(
        refused.one_sentence().contains("no pool runs here"),
        "{refused:?}"
    );
}

#[test]
fn a_run_and_a_second_pool_on_the_host_cpus_of_a_pool_are_refused_with_the_way_in() {
    let place = Place::new("owner");
    let pool = place.start(&[]);
    let cpu = first_cpu();
    let way_in = format!(
        "have it run the guests with baton vm --pool {}",
        place.pool()
    );
    let run = [
        "run",
        "--host-cpus",
        &cpu,
        "--duration",
        "50ms",
        "--control",
        "off",
    ];
    let other = place.path("other").to_string_lossy().into_owned();
    let second = ["pool", "--host-cpus", &cpu, "--dir", &other];
    for (words, of) in [(&run[..], "of this run"), (&second, "of this pool")] {
        let mut command = command(words);
        command.env(VARIABLE, place.path("cpus"));
        let refused = Running::spawn(&mut command).finish();
        let sentence = refused.one_sentence();
        let owner = format!(
            "baton: baton pool (process {}) owns host CPUs {cpu} {of}",
            pool.pid()
        );
        assert!(
            sentence.starts_with(&owner) && sentence.contains(&way_in),
            "{sentence}"
        );
    }
}
