//! `baton bench switch`: every operation is measured or skipped with a reason, and the report has its
//! documented form.

#[path = "common/mod.rs"]
mod common;

use serde_json::Value;

/// The operations, in their order.
const ALL: [&str; 7] = [
    "doorbell",
    "switch",
    "kick",
    "migration",
    "halt-wake",
    "preemption",
    "proxy",
];

fn report(flags: &[&str]) -> Value {
    let mut words = vec!["bench", "switch", "--quick", "--runs", "1", "--json", "-"];
    words.extend(flags);
    let ran = common::baton(&words);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("json")
}

/// The operations of an array of the report.
fn operations(array: &Value) -> Vec<&str> {
    let each = array.as_array().expect("an array").iter();
    each.map(|row| row["operation"].as_str().expect("a name"))
        .collect()
}

#[test]
fn every_operation_has_figures_in_every_form_or_says_that_it_has_not() {
    let report = report(&["--host-cpus", "0-1"]);
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["runs"], 1);
    assert_eq!(operations(&report["results"]), ALL);
    assert!(operations(&report["skipped"]).is_empty());
    for row in report["results"].as_array().expect("rows") {
        let operation = row["operation"].as_str().expect("a name");
        let without_host = ["migration", "preemption"].contains(&operation);
        assert_eq!(row["host_ns"].is_null(), without_host, "{row}");
        assert_eq!(row["without_ns"].is_null(), operation != "migration");
        assert!(row["count"].as_u64() > Some(0), "it was done: {row}");
        let (pool, threads) = (&row["pool_ns"], &row["threads_ns"]);
        assert!(pool.is_object() && threads.is_object(), "{row}");
        let has_ratio = threads["median"].as_u64() > Some(0);
        assert_eq!(row["pool_to_threads"].is_number(), has_ratio, "{row}");
        for side in ["baton_ns", "threads_ns", "pool_ns", "without_ns", "host_ns"] {
            let [min, median, max] = ["min", "median", "max"].map(|key| row[side][key].as_u64());
            assert!(min <= median && median <= max, "{row}");
            // These two are differences, which may be 0 on a busy machine.
            let difference = ["halt-wake", "preemption"].contains(&operation);
            if !row[side].is_null() && !difference {
                assert!(min > Some(0), "{row}");
            }
        }
    }
}

#[test]
fn a_pool_of_one_cpu_skips_the_migration_with_a_sentence() {
    let report = report(&["--host-cpus", "0"]);
    let rest = ALL
        .map(Some)
        .map(|each| each.filter(|&name| name != "migration"));
    let rest: Vec<_> = rest.into_iter().flatten().collect();
    assert_eq!(operations(&report["results"]), rest);
    assert_eq!(operations(&report["skipped"]), ["migration"]);
    let reason = report["skipped"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("two host CPUs"), "{reason}");
}

#[test]
fn the_document_explains_every_name_of_the_report() {
    let report = report(&["--host-cpus", "0"]);
    let document = include_str!("../../docs/bench-schema.md");
    let (_, document) = document
        .split_once("`baton bench switch --json`")
        .expect("a section");
    let objects = [&report, &report["results"][0], &report["skipped"][0]];
    let names = objects.map(|object| object.as_object().expect("an object").keys());
    let names = names.into_iter().flatten().map(String::as_str);
    for name in names.chain(ALL) {
        let explained = document.contains(&format!("`{name}`"));
        assert!(explained, "docs/bench-schema.md does not explain {name}");
    }
}
