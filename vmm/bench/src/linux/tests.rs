use clap::Parser;

use super::axes::{LinuxLoad, LinuxPolicy, Work};
use super::figures::WorkFigures;
use super::report::GuestRun;
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
    let run = |round, policy, done, wait| GuestRun {
        round,
        load: LinuxLoad::X4,
        policy,
        restarts: u32::from(round == 1),
        figures: vec![figure(done, wait)],
    };
    let mut runs = Vec::new();
    for (round, scale) in [(0, 1), (1, 100), (2, 10)] {
        runs.push(run(round, LinuxPolicy::Host, 10 * scale, 40 * scale));
        runs.push(run(round, LinuxPolicy::Baton, 15 * scale, 10 * scale));
    }
    let report = LinuxReport::new(&args, 2, &runs);
    let [host, baton] = &report.results[..] else {
        panic!("two rows");
    };
    assert_eq!((host.ratio_to_host, host.vcpus), (Some(1.0), 8));
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
    let runs = [GuestRun {
        round: 0,
        load: LinuxLoad::X1,
        policy: LinuxPolicy::Baton,
        restarts: 3,
        figures: Vec::new(),
    }];
    assert!(LinuxReport::new(&args, 2, &runs).results.is_empty());
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
