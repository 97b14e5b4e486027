use std::path::Path;
use std::time::Duration;

use baton_config::file;
use clap::{Parser, ValueEnum};

use super::report::{SCHEMA_VERSION, SkippedAttack, row};
use super::table::render;
use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: AttacksArgs,
}

fn args(words: &[&str]) -> AttacksArgs {
    let line = Line::try_parse_from(["attacks"].iter().chain(words));
    line.expect("parses").args
}

/// A run in which the process used `used_ms` beyond the 900 ms of the victim. Of these, the attacker was
/// charged 10 ms.
fn example(used_ms: u64, work: u64) -> AttackFigures {
    AttackFigures {
        process_ns: (900 + used_ms) * 1_000_000,
        charged_ns: 910_000_000,
        attacker_charged_ns: 10_000_000,
        victim_charged_ns: 900_000_000,
        victim_promised_ns: 1_000_000_000,
        victim_work: work,
        victim_ok: true,
        ..AttackFigures::default()
    }
}

const SUMMARY: &str = r#"[attacker] {
[attacker] guest: 5 iterations
{
  "elapsed_ns": 1000000000,
  "guests": [
    {"name": "attacker", "ok": false, "end": "failed with code 3", "workload": {"iterations": 5},
     "vcpus": [{"charged_ns": 20000000, "deadline_misses": 7, "exits": {"mmio": 9}},
               {"charged_ns": 10000000, "deadline_misses": 0, "exits": {"mmio": 9}}]},
    {"name": "neighbour", "ok": true, "vcpus": [{"charged_ns": 50000000}]},
    {"name": "victim", "ok": true, "exit_code": 0, "workload": {"iterations": 123},
     "vcpus": [{"charged_ns": 800000000, "deadline_misses": 2, "exits": {"halts": 3, "mmio": 4}}]}
  ]
CPU}
"#;

fn read(stdout: &str, process_ns: u64) -> Option<AttackFigures> {
    AttackFigures::of(&figures::summary(stdout)?, process_ns)
}

#[test]
fn each_attack_is_a_run_with_the_guests_that_the_table_says() {
    for &attack in Attack::value_variants() {
        for neighbour in [Neighbour::Idle, Neighbour::Attacker] {
            let text = attack.guests(neighbour, &[4, 6], Duration::from_millis(1500));
            let config = file::parse(&text, Path::new("")).expect("parses");
            let guest = |name| config.guests.iter().find(|guest| guest.name == name);
            let (attacker, victim) = (guest("attacker"), guest("victim"));
            let (attacker, victim) = (attacker.expect("one"), victim.expect("one"));
            assert_eq!(victim.host_cpus, [Some(vec![6])]);
            assert_eq!(victim.reservations, ["45ms/50ms,hard".parse().ok()]);
            assert!(victim.cmdline.contains("seconds=1.5"), "{text}");
            let idle = attacker.cmdline.contains("workload=idle ");
            assert_eq!(idle, neighbour == Neighbour::Idle, "{text}");
            assert_eq!(config.awaited().count(), 1);
        }
    }
}

#[test]
fn figures_are_read_from_the_summary_after_what_guests_print() {
    let found = read(&SUMMARY.replace("CPU", ""), 900_000_000).expect("a summary");
    let expected = AttackFigures {
        process_ns: 900_000_000,
        charged_ns: 880_000_000,
        attacker_charged_ns: 30_000_000,
        attacker_failure: Some("failed with code 3".to_owned()),
        victim_charged_ns: 800_000_000,
        victim_promised_ns: 900_000_000,
        victim_misses: 2,
        victim_exits: 7,
        victim_work: 123,
        victim_ok: true,
        elapsed_ns: 1_000_000_000,
        ..AttackFigures::default()
    };
    assert_eq!(found, expected);
    assert_eq!(found.uncharged_ns(), 20_000_000);
    assert_eq!(found.attacker_used_ns(), 50_000_000);
    for bad in ["", "guest: hello\n", "{\n}\n"] {
        assert_eq!(read(bad, 0), None, "{bad}");
    }
}

#[test]
fn what_the_summary_says_of_the_process_goes_before_what_the_kernel_does() {
    let cpu = r#", "cpu": {"process_ns": 950000000, "charged_ns": 890000000,
        "unassigned_ns": {"idle_executors": 50000000, "rest": 10000000}}"#;
    let found = read(&SUMMARY.replace("CPU", cpu), 1).expect("a summary");
    assert!(found.is_exact);
    assert_eq!(
        (found.process_ns, found.unassigned_ns),
        (950_000_000, 50_000_000)
    );
    // What is not charged through a vCPU is the attacker's.
    assert_eq!(found.attacker_charged_ns, 40_000_000);
    assert_eq!(found.uncharged_ns(), 10_000_000);
}

#[test]
fn ratios_are_those_of_the_same_round() {
    let pairs = [(100, 50), (1000, 900), (10, 6)];
    let pairs = pairs.map(|(idle, attacked)| [example(20, idle), example(310, attacked)]);
    let row = row(Attack::DeviceHog, &pairs);
    assert_eq!((row.runs, row.work_ratio), (3, Some(0.6)));
    assert_eq!(row.work_per_cpu_ratio, Some(0.6));
    assert_eq!(row.beside_idle.attacker_used_ns.median, 20_000_000);
    assert_eq!(row.beside_attacker.attacker_used_ns.median, 310_000_000);
    assert_eq!(row.beside_attacker.uncharged_ns.median, 300_000_000);
    assert_eq!(row.beside_attacker.received, 0.9);
    let report = AttacksReport {
        schema_version: SCHEMA_VERSION,
        runs: 3,
        run_ns: 1,
        host_cpus: vec![0, 1],
        results: vec![row],
        skipped: vec![SkippedAttack {
            attack: Attack::LateHalts,
            reason: "no root".to_owned(),
            failed: false,
        }],
    };
    let table = render(&report);
    assert!(table.contains("device-hog"), "{table}");
    assert!(table.contains("90.0 -> 90.0"), "{table}");
    assert!(table.contains("late-halts: skipped: no root"), "{table}");
}

#[test]
fn quick_is_planned_for_less_than_a_minute() {
    let (runs, time) = args(&["--quick"]).runs_and_time();
    let attacks = args(&[]).chosen().len() as u32;
    assert!(time * runs * attacks * 2 < Duration::from_secs(45));
    let (runs, time) = args(&["--quick", "--runs", "3", "--seconds", "500ms"]).runs_and_time();
    assert_eq!((runs, time), (3, Duration::from_millis(500)));
    let chosen = args(&["--attacks", "ipi-storm,device-hog,ipi-storm"]).chosen();
    assert_eq!(chosen, [Attack::IpiStorm, Attack::DeviceHog]);
}
