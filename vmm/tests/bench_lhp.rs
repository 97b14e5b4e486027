//! `baton bench lhp` on real KVM: the form of its outputs, never their figures.

mod common;

use std::path::{Path, PathBuf};

use serde_json::Value;

use common::{baton, spawn_and_interrupt};

/// A path in the directory of the test build.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn small_matrix_gives_table_json_csv_and_page() {
    let (json, csv, html) = (path("lhp.json"), path("lhp.csv"), path("lhp.html"));
    let ran = baton(&[
        "bench",
        "lhp",
        "--locks",
        "ticket",
        "--loads",
        "2x,hog",
        "--policies",
        "host-spin,host-pv,baton-inferred,baton",
        "--runs",
        "1",
        "--seconds-per-run",
        "200ms",
        "--json",
        text(&json),
        "--csv",
        text(&csv),
        "--html",
        text(&html),
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stdout.contains("\n2x: "), "{ran:?}");
    // The lines that guests print at their end must not be shown.
    assert!(!ran.stdout.contains("guest:"), "{ran:?}");

    let json = std::fs::read_to_string(json).expect("written");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["skipped"], Value::Array(Vec::new()));
    assert_eq!(json["limits"][0]["lock"], "ticket");
    let rows = json["results"].as_array().expect("rows");
    let cells: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {}", row["lock"], row["load"], row["policy"]).replace('"', ""))
        .collect();
    assert_eq!(
        cells,
        [
            "ticket 2x host-spin",
            "ticket 2x host-pv",
            "ticket 2x baton-inferred",
            "ticket 2x baton",
            "ticket hog host-spin",
            "ticket hog host-pv",
            "ticket hog baton-inferred",
            "ticket hog baton",
        ]
    );
    for row in rows {
        assert_eq!(row["runs"], 1);
        assert!(row["acq_per_cpu_s"]["median"].as_u64() > Some(0), "{row}");
        assert!(row["ratio_to_limit"].as_f64() > Some(0.0), "{row}");
        let wait = |name: &str| row["wait_ns"][name].as_u64().expect("a time");
        assert!(wait("p50") <= wait("p99") && wait("p99") <= wait("p999"));
        assert!(wait("p999") <= wait("max"));
        let points = row["wait_percentiles_ns"].as_array().expect("points");
        assert_eq!(points[0], serde_json::json!([50.0, wait("p50")]));
        assert_eq!(
            points.last(),
            Some(&serde_json::json!([100.0, wait("max")]))
        );
        let time = |name: &str| row[name].as_u64().expect("a time");
        assert!(time("spin_ns") <= time("ran_ns"), "{row}");
    }
    assert!(rows[2]["ratio_to"]["host-pv"].is_number());

    let csv = std::fs::read_to_string(csv).expect("written");
    assert_eq!(csv.lines().count(), 1 + rows.len());
    let inferred = csv.lines().filter(|line| line.contains(",baton-inferred,"));
    assert_eq!(inferred.count(), 2);
    let html = std::fs::read_to_string(html).expect("written");
    assert_eq!(html.matches("<rect").count(), rows.len());
    assert!(html.contains("<h3>ticket at 2x: "));
    assert_eq!(html.matches("class=\"line\"").count(), 4);
    // The recorded scene: a wait without proxying, and one with it.
    assert_eq!(html.matches(" waits for the lock: ").count(), 2, "{html}");
}

#[test]
fn guests_as_processes_of_a_pool_are_compared_with_threads_of_one_process() {
    let ran = baton(&[
        "bench",
        "lhp",
        "--locks",
        "mcs",
        "--loads",
        "4x,two-guests,hard",
        "--policies",
        "baton-threads,baton-pool",
        "--runs",
        "1",
        "--seconds-per-run",
        "100ms",
        "--json",
        "-",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json["skipped"], Value::Array(Vec::new()));
    let rows = json["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 6);
    for pair in rows.chunks(2) {
        let (threads, pool) = (&pair[0], &pair[1]);
        assert_eq!(
            (&threads["policy"], &pool["policy"]),
            (&"baton-threads".into(), &"baton-pool".into())
        );
        assert!(pool["ratio_to"]["baton-threads"].as_f64() > Some(0.0));
        assert!(threads["ratio_to"].as_object().expect("ratios").is_empty());
        // What only the pool counts has arrived in the summary of the guest.
        assert!(pool["switches_per_acq"].as_f64() > Some(0.0), "{pool}");
        assert!(pool["ran_ns"].as_u64() > Some(0), "{pool}");
    }
}

/// The processes that run the program of these tests, but for this one.
fn processes_of(parent: u32) -> Vec<String> {
    let of = |entry: std::fs::DirEntry| -> Option<String> {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in brackets, the state, the parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
        let is_child = fields.next()?.parse() == Ok(parent);
        is_child.then_some(stat)
    };
    let all = std::fs::read_dir("/proc").expect("processes");
    all.flatten().filter_map(of).collect()
}

#[test]
fn processes_of_a_pool_end_with_the_benchmark_whatever_ends_it() {
    const WORDS: [&str; 9] = [
        "bench",
        "lhp",
        "--locks",
        "tas",
        "--loads",
        "4x",
        "--policies",
        "baton-pool",
        "--runs",
    ];
    for signal in [libc::SIGINT, libc::SIGKILL] {
        let mut words = WORDS.to_vec();
        words.extend(["1000", "--seconds-per-run", "60", "--json", "-"]);
        let bench = common::start(&words);
        let pid = bench.pid() as u32;
        // The pool and the guest.
        let mut children = Vec::new();
        while children.len() < 2 {
            std::thread::yield_now();
            children = processes_of(pid);
        }
        let pids: Vec<String> = children
            .iter()
            .map(|stat| stat.split(' ').next().expect("a number").to_owned())
            .collect();
        bench.signal(signal);
        let output = bench.output();
        if signal == libc::SIGINT {
            let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(json["interrupted"], true);
        }
        for pid in pids {
            let path = PathBuf::from("/proc").join(pid).join("cmdline");
            // One that was killed is there until it has been waited for, with an empty command line.
            while std::fs::read(&path).is_ok_and(|words| words.starts_with(b"/")) {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn json_on_standard_output_comes_alone() {
    let ran = baton(&[
        "bench",
        "lhp",
        "--locks",
        "tas",
        "--loads",
        "1x",
        "--policies",
        "baton-nohints",
        "--runs",
        "1",
        "--seconds-per-run",
        "0.05",
        "--host-cpus",
        "0",
        "--json",
        "-",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json["settings"]["host_cpus"], serde_json::json!([0]));
    assert_eq!(json["results"][0]["vcpus"], 1);
}

#[test]
fn interrupted_benchmark_shows_what_it_has() {
    let ran = spawn_and_interrupt(&["bench", "lhp", "--runs", "1000", "--json", "-"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json["interrupted"], true);
}

#[test]
fn host_cpu_that_is_not_there_is_said_in_one_sentence() {
    let ran = baton(&["bench", "lhp", "--host-cpus", "8000"]);
    assert!(
        ran.one_sentence().contains("host CPU 8000 cannot be used"),
        "{ran:?}"
    );
}

#[test]
fn file_that_cannot_be_written_is_said_before_anything_runs() {
    let ran = baton(&["bench", "lhp", "--csv", "/no/such/directory/x.csv"]);
    assert!(
        ran.one_sentence().contains("cannot write /no/such"),
        "{ran:?}"
    );
}
