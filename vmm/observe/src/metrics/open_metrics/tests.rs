use vcpu_sched::Counters;

use super::*;
use crate::metrics::gauges::ExecutorCounts;
use crate::metrics::pool_now::PoolNow;
use crate::metrics::snapshot::GuestNow;
use crate::metrics::tally::VcpuTally;
use crate::names::{Names, VcpuName};

pub(in crate::metrics) fn snapshot(guest: &str) -> MetricsSnapshot {
    let vcpu = |number, index| VcpuName {
        guest: number,
        guest_name: [guest, "batch"][number].to_owned(),
        index,
    };
    let counters = Counters {
        runtime_ns: 1_500_000_000,
        proxied: 3,
        ..Counters::default()
    };
    let tally = VcpuTally {
        chains: [2, 1, 0, 0, 0, 0],
        chain_edges: 4,
        ..VcpuTally::default()
    };
    MetricsSnapshot {
        names: Names {
            host_cpus: vec![4],
            vcpus: vec![vcpu(0, 0), vcpu(0, 1), vcpu(1, 0)],
        },
        guests: vec![
            GuestNow {
                name: guest.to_owned(),
                hints: "inferred (preempt count)".to_owned(),
                restarts: 2,
            },
            GuestNow {
                name: "batch".to_owned(),
                hints: "off".to_owned(),
                restarts: 0,
            },
        ],
        vcpus: vec![(counters, tally), Default::default(), Default::default()],
        cpus: vec![(
            ExecutorCounts {
                busy_ns: 250_000_000,
                ..Default::default()
            },
            7,
        )],
        pool: PoolNow {
            usable: vec![false],
            kept: vec![Some(0.25), None, None],
        },
    }
}

#[test]
fn a_host_cpu_that_is_away_and_the_part_of_a_reservation_that_is_kept_are_gauges() {
    let text = render(&snapshot("db"));
    for line in [
        "# TYPE baton_executor_available gauge",
        "baton_executor_available{cpu=\"4\"} 0.0",
        "baton_vcpu_reservation_kept_ratio{guest=\"db\",vcpu=\"0\"} 0.25",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let kept = text
        .lines()
        .filter(|l| l.starts_with("baton_vcpu_reservation"));
    assert_eq!(kept.count(), 1, "those without a reservation have none");
}

#[test]
fn the_source_of_each_guests_hints_is_a_label() {
    let text = render(&snapshot("db"));
    for line in [
        "# TYPE baton_guest_hint_source gauge",
        "baton_guest_hint_source{guest=\"db\",source=\"inferred (preempt count)\"} 1.0",
        "baton_guest_hint_source{guest=\"batch\",source=\"off\"} 1.0",
        "baton_guest_restarts_total{guest=\"db\"} 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}

#[test]
fn times_are_seconds_and_the_text_ends() {
    let text = render(&snapshot("db"));
    for line in [
        "# HELP baton_vcpu_run_seconds CPU time that the vCPU ran, on any budget",
        "# TYPE baton_vcpu_run_seconds counter",
        "# UNIT baton_vcpu_run_seconds seconds",
        "baton_vcpu_run_seconds_total{guest=\"db\",vcpu=\"0\"} 1.5",
        "baton_vcpu_proxied_total{guest=\"db\",vcpu=\"0\"} 3",
        "baton_vcpu_proxy_chain_length_bucket{le=\"2.0\",guest=\"db\",vcpu=\"0\"} 3",
        "baton_vcpu_proxy_chain_length_bucket{le=\"+Inf\",guest=\"db\",vcpu=\"0\"} 3",
        "baton_vcpu_proxy_chain_length_sum{guest=\"db\",vcpu=\"0\"} 4.0",
        "baton_executor_busy_seconds_total{cpu=\"4\"} 0.25",
        "baton_executor_kicks_total{cpu=\"4\"} 7",
        "baton_executor_exits_total{cpu=\"4\",kind=\"doorbell\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n"));
}

#[test]
fn every_sample_belongs_to_the_family_before_it_and_none_comes_twice() {
    let text = render(&snapshot("db"));
    let mut seen = std::collections::HashSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(family.clone()), "{family} twice");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            assert!(sample.starts_with(&family), "{line} under {family}");
            assert!(value.parse::<f64>().is_ok_and(|v| v >= 0.0), "{line}");
            assert!(seen.insert(sample.to_owned()), "{sample} twice");
        }
    }
}

#[test]
fn a_guests_name_cannot_break_out_of_its_label() {
    let text = render(&snapshot("a\"b\\c\nd"));
    assert!(text.contains(r#"{guest="a\"b\\c\nd",vcpu="0"}"#), "{text}");
}
