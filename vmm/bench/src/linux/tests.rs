use clap::Parser;

use super::axes::{LinuxLoad, LinuxPolicy, Work};
use super::figures::{WorkFigures, parse_release};
use super::guest::GuestResults;
use super::guest_run::GuestRun;
use super::plan::{LinuxCell, LinuxPlan};
use super::table::render;
use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: LinuxArgs,
}

fn args(more: &[&str]) -> LinuxArgs {
    let line = ["linux", "--stock", "a", "--patched", "b", "--initrd", "c"];
    Line::try_parse_from(line.iter().chain(more))
        .expect("parses")
        .args
}

fn figure(done: u64, wait: u64) -> WorkFigures {
    WorkFigures {
        work: Work::Spin,
        done,
        in_ns: 1_000_000_000,
        max_wait_ns: Some(wait),
        median_wait_ns: None,
    }
}

fn results(done: u64, wait: u64) -> GuestResults {
    GuestResults {
        figures: vec![figure(done, wait)],
        release: Some("6.12.1".to_owned()),
        summary: serde_json::json!({ "name": "g1" }),
    }
}

fn cell(kernel: &str, load: LinuxLoad, policy: LinuxPolicy) -> LinuxCell {
    LinuxCell {
        kernel: kernel.to_owned(),
        load,
        policy,
    }
}

fn report(args: &LinuxArgs, runs: Vec<GuestRun>) -> LinuxReport {
    let plan = LinuxPlan::new(args).expect("a plan");
    LinuxReport::new(args, plan, vec![0, 1], runs)
}

#[test]
fn lines_of_the_guest_are_figures_and_other_lines_are_not() {
    let line = "[    2.1] bench: spin done 10 in_ns 1000000000 max_wait_ns 7 least 4 most 6";
    assert_eq!(WorkFigures::parse(line), Some(figure(10, 7)));
    let messaging = WorkFigures::parse("bench: messaging done 20 in_ns 5").expect("a figure");
    assert_eq!(
        (messaging.per_second(), messaging.max_wait_ns),
        (4_000_000_000, None)
    );
    let wake =
        WorkFigures::parse("bench: wake done 800 in_ns 2 max_wait_ns 9000 median_wait_ns 4000");
    assert_eq!(wake.expect("a figure").median_wait_ns, Some(4_000));
    for bad in [
        "",
        "bench: spin",
        "bench: spin done x in_ns 5",
        "bench: spin done 1 in_ns 0",
        "spin done 10 in_ns 5",
        "bench: fly done 10 in_ns 5",
    ] {
        assert_eq!(WorkFigures::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_guest_with_more_acquisitions_than_its_cpus_can_make_is_started_again() {
    for (done, cpus, good) in [
        (230_000, 1, true),
        (275_000, 1, true),
        (613_959, 1, false),
        (500_000, 2, true),
        (613_959, 2, false),
    ] {
        let results = results(done, 7);
        assert_eq!(
            results.are_good(&[Work::Spin], cpus),
            good,
            "{done} on {cpus}"
        );
        assert!(!results.are_good(&[Work::Spin, Work::Wake], cpus));
    }
}

#[test]
fn ratios_are_those_of_the_same_round() {
    let args = args(&[
        "--loads",
        "4x",
        "--policies",
        "host,baton",
        "--runs",
        "3",
        "--works",
        "spin",
    ]);
    let run = |round, policy, done, wait| {
        let cell = cell("stock", LinuxLoad::X4, policy);
        GuestRun::new(round, cell, u32::from(round == 1), results(done, wait))
    };
    let mut runs = Vec::new();
    for (round, scale) in [(0, 1), (1, 100), (2, 10)] {
        runs.push(run(round, LinuxPolicy::Host, 10 * scale, 40 * scale));
        runs.push(run(round, LinuxPolicy::Baton, 15 * scale, 10 * scale));
    }
    let report = report(&args, runs);
    let [host, baton] = &report.results[..] else {
        panic!("two rows");
    };
    assert_eq!((host.ratio_to_host, host.vcpus), (Some(1.0), 8));
    assert_eq!(
        (host.ratio_to_baton, baton.ratio_to_baton),
        (Some(0.6667), Some(1.0))
    );
    assert_eq!(baton.ratio_to_host, Some(1.5));
    assert_eq!(baton.wait_ratio_to_host, Some(0.25));
    assert_eq!(baton.per_second.median, 150);
    assert_eq!(
        report.restarts,
        [(LinuxPolicy::Host, 1), (LinuxPolicy::Baton, 1)]
    );
    assert!(render(&report).contains("baton: 1 guests started again"));
}

#[test]
fn a_guest_without_results_has_no_row() {
    let args = args(&["--loads", "1x", "--policies", "baton"]);
    let cell = cell("stock", LinuxLoad::X1, LinuxPolicy::Baton);
    let run = GuestRun::new(0, cell, 3, GuestResults::default());
    assert!(report(&args, vec![run]).results.is_empty());
}

#[test]
fn a_work_that_the_guest_does_not_have_is_refused_with_those_that_it_has() {
    let line = ["linux", "--stock", "a", "--patched", "b", "--initrd", "c"];
    let error = Line::try_parse_from(line.iter().chain(&["--works", "spin,fly"]))
        .expect_err("no such work")
        .to_string();
    assert!(error.contains("'fly'"), "{error}");
    for work in ["spin", "mutex", "messaging", "wake", "compile"] {
        assert!(error.contains(work), "{error}");
    }
}

/// The plan's cells as `KERNEL POLICY`, or the error.
fn planned(line: &[&str]) -> Result<Vec<String>, String> {
    let line = [&["linux", "--initrd", "c", "--loads", "4x"], line].concat();
    let args = Line::try_parse_from(line)
        .map_err(|error| error.to_string())?
        .args;
    let plan = LinuxPlan::new(&args).map_err(|error| error.to_string())?;
    let cells = plan.cells.iter();
    Ok(cells
        .map(|cell| format!("{} {}", cell.kernel, cell.policy))
        .collect())
}

#[test]
fn each_kernel_has_the_policies_that_fit_it() {
    let cells = planned(&["--patched", "b", "--kernel", "debian=d", "--stock", "a"]);
    let expected = [
        "stock host",
        "stock baton",
        "stock baton-inferred",
        "debian host",
        "debian baton",
        "debian baton-inferred",
        "patched baton-patched",
    ];
    assert_eq!(cells.expect("a plan"), expected);
    let cells = planned(&["--kernel", "6.12=d", "--policies", "baton,host,baton"]);
    assert_eq!(cells.expect("a plan"), ["6.12 baton", "6.12 host"]);
    let cells = planned(&["--kernel", "6.12=d", "--policies", "baton-inferred-any"]);
    assert_eq!(cells.expect("a plan"), ["6.12 baton-inferred-any"]);
}

#[test]
fn kernels_that_do_not_fit_are_refused_with_the_flag_that_is_missing() {
    for (line, flag) in [
        (&["--policies", "host"][..], "--stock FILE"),
        (&[], "--stock FILE"),
        (&["--patched", "b", "--policies", "baton"], "--stock FILE"),
        (
            &["--stock", "a", "--policies", "baton-patched"],
            "--patched FILE",
        ),
        (
            &["--stock", "a", "--kernel", "stock=b"],
            "two kernels stock",
        ),
        (&["--kernel", "patched=b"], "--patched FILE"),
        (&["--kernel", "/boot/vmlinuz"], "NAME=FILE"),
        (&["--kernel", "a b=c"], "letters"),
    ] {
        let error = planned(line).expect_err("no plan");
        assert!(error.contains(flag), "{line:?}: {error}");
    }
}

#[test]
fn each_policy_gives_the_source_of_hints() {
    let hints = LinuxPolicy::ALL.map(|policy| (policy.sched(), policy.hints()));
    let expected = [
        ("host", "off"),
        ("baton", "off"),
        ("baton", "inferred"),
        ("baton", "inferred:any"),
        ("baton", "page"),
    ];
    assert_eq!(hints, expected);
}

#[test]
fn the_patched_kernel_is_compared_with_the_stock_kernel_and_others_with_themselves() {
    let args = args(&["--kernel", "debian=d", "--loads", "1x"]);
    let run = |kernel, policy, done| {
        GuestRun::new(0, cell(kernel, LinuxLoad::X1, policy), 0, results(done, 1))
    };
    let report = report(
        &args,
        vec![
            run("stock", LinuxPolicy::Host, 10),
            run("debian", LinuxPolicy::Host, 20),
            run("debian", LinuxPolicy::BatonInferred, 30),
            run("patched", LinuxPolicy::BatonPatched, 30),
        ],
    );
    let ratios: Vec<_> = report.results.iter().map(|row| row.ratio_to_host).collect();
    assert_eq!(ratios, [Some(1.0), Some(1.0), Some(1.5), Some(3.0)]);
}

#[test]
fn the_json_has_every_run_and_its_names_are_those_of_the_documented_schema() {
    let args = args(&["--loads", "1x", "--virtual-time"]);
    let cell = cell("stock", LinuxLoad::X1, LinuxPolicy::Baton);
    let runs = vec![GuestRun::new(0, cell, 0, results(10, 1))];
    let json = serde_json::to_value(report(&args, runs)).expect("json");
    let run = &json["guests"][0];
    assert_eq!(run["kernel"], "stock");
    assert_eq!(run["release"], "6.12.1");
    assert_eq!(run["works"][0]["done"], 10);
    assert_eq!(json["settings"]["virtual_time"], true);
    let document = include_str!("../../../../docs/bench-schema.md");
    let (_, document) = document.split_once("bench linux --json").expect("a part");
    let objects = [
        "/settings",
        "/host",
        "/kernels/0",
        "/results/0",
        "/guests/0",
        "",
    ];
    for object in objects.map(|path| json.pointer(path).expect("is there")) {
        for name in object.as_object().expect("an object").keys() {
            assert!(
                document.contains(&format!("`{name}`")),
                "docs/bench-schema.md does not explain {name}"
            );
        }
    }
}

#[test]
fn the_release_is_that_of_the_line_that_begins_the_test() {
    let line = "guest: 6.12.117+deb12-cloud-amd64, 4 CPUs, test bench";
    assert_eq!(parse_release(line), Some("6.12.117+deb12-cloud-amd64"));
    assert_eq!(parse_release("guest: done, exits"), None);
}
