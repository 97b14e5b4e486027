//! Guests join and leave while another one runs, and leave nothing behind. Nothing else runs in this process, so
//! that its threads and files can be counted.

mod common;

use std::fs;

use baton_config::VcpuThreads;
use common::{TestPool, config, reserved};

/// How many guests come and go.
const VISITS: usize = 200;
/// So many visits come before the memory is measured, in which allocators and tables grow to their sizes.
const WARM_UP: usize = 50;
/// Memory of the process that may come and go, bytes.
const SLACK: u64 = 24 << 20;

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).expect("of this process").count()
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("of this process");
    let pages = statm.split(' ').nth(1).expect("a field");
    pages.parse::<u64>().expect("a number") * 4096
}

#[test]
fn guests_that_come_and_go_cost_a_reservation_no_deadline_and_leave_nothing_behind() {
    // Once before the counts, for what is set up once in a process.
    come_and_go(2);
    let before = (entries("/proc/self/task"), entries("/proc/self/fd"));
    let grown = come_and_go(VISITS);
    let after = (entries("/proc/self/task"), entries("/proc/self/fd"));
    assert_eq!(after, before, "threads and files");
    assert!(grown < SLACK, "{grown} bytes more");
}

/// Lets `visits` guests join and leave beside one with a reservation. Returns by how much the memory has grown
/// since the warm-up, bytes.
fn come_and_go(visits: usize) -> u64 {
    // The period leaves the host much time for other things, so that a miss is one of the pool.
    let resident_guest = reserved("resident", 1, "seconds=0", "10ms/400ms,hard");
    let pool = TestPool::start(2, vec![resident_guest], VcpuThreads::Auto);
    let mut warm = 0;
    for visit in 0..visits {
        if visit == WARM_UP {
            warm = resident();
        }
        visit_once(&pool, visit);
    }
    let grown = resident().saturating_sub(warm);
    let TestPool { runner, .. } = pool;
    let report = runner.stop();
    assert_eq!(report.vcpus.len(), 1, "the others have left");
    let counters = &report.vcpus[0][0].counters;
    assert!(counters.runtime_ns > 0);
    assert_eq!(counters.deadline_misses, 0, "{counters:?}");
    grown
}

fn visit_once(pool: &TestPool, visit: usize) {
    // One that computes, one whose vCPUs halt, one with a reservation, and one that ends by itself.
    let visitor = match visit % 4 {
        0 => config("visitor", 2, "hints=on seconds=0"),
        1 => config(
            "visitor",
            2,
            "workload=idle-timers hints=on seconds=0 period=1ms",
        ),
        2 => reserved("visitor", 2, "hints=on seconds=0", "1ms/20ms"),
        _ => config("visitor", 1, "acquisitions=1"),
    };
    let vcpus = visitor.cpus;
    let ends = visit % 4 == 3;
    let guest = pool.join(visitor);
    if ends {
        pool.until_ended("visitor");
    }
    drop(guest);
    let account = pool.handle.leave("visitor").expect("it is there");
    assert_eq!(account.vcpus.len(), vcpus);
    let end = account.record.ended().expect("it has ended");
    assert!(end.is_success(), "{end}");
    assert_eq!(pool.state("visitor"), None);
}
