//! A run of several guests that ends with one of them.

mod common;

use common::{baton, file};

/// One guest that ends by itself, between two that never end.
const GUESTS: &str = r#"
    [[guest]]
    name = "hog"
    cmdline = "workload=hog seconds=0"
    [[guest]]
    name = "db"
    cmdline = "lock=ticket acquisitions=500"
    [[guest]]
    name = "sleeper"
    cmdline = "workload=idle seconds=0"
"#;

/// Runs the guests of a file. Returns for each guest whether it ended by itself.
fn ended(name: &str, text: &str, flags: &[&str]) -> Vec<bool> {
    let config = file(name, text.as_bytes());
    let path = config.to_string_lossy();
    let mut words = vec!["run", &*path, "--summary", "json"];
    words.extend(flags);
    let ran = baton(&words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = ran.summary();
    let guests = summary["guests"].as_array().expect("guests").iter();
    guests.map(|guest| guest["exit_code"] == 0).collect()
}

#[test]
fn a_run_ends_with_the_guest_that_the_file_names() {
    let text = format!("until_guest = \"db\"\n{GUESTS}");
    assert_eq!(ended("until.toml", &text, &[]), [false, true, false]);
}

#[test]
fn the_flag_names_the_guest_under_every_scheduler_and_goes_before_the_file() {
    let text = format!("until_guest = \"hog\"\n{GUESTS}");
    for sched in ["baton", "host"] {
        let flags = ["--until-guest", "db", "--sched", sched];
        let name = format!("until-{sched}.toml");
        assert_eq!(ended(&name, &text, &flags), [false, true, false]);
    }
}

#[test]
fn guests_that_end_earlier_do_not_end_the_run() {
    let text = "until_guest = \"late\"\n\
        [[guest]]\nname = \"early\"\ncmdline = \"workload=boot\"\n\
        [[guest]]\nname = \"late\"\ncmdline = \"lock=tas acquisitions=2000\"\n";
    let flags = ["--host-cpus", "0"];
    assert_eq!(ended("late.toml", text, &flags), [true, true]);
}

#[test]
fn a_guest_that_is_not_there_is_refused_in_one_sentence() {
    let config = file("unknown.toml", GUESTS.as_bytes());
    let ran = baton(&["run", &config.to_string_lossy(), "--until-guest", "web"]);
    assert_eq!(
        ran.one_sentence(),
        "baton: there is no guest 'web' to wait for: this run has hog, db, sleeper"
    );
}
