//! A pool gets and gives up host CPUs while guests of other processes run.

mod processes;

use std::fs;

use baton_host::executor::{PoolCpuError, VcpuChange};
use processes::guest::{self, Behaviour};
use processes::pool::ServicePool;
use processes::until;

/// How often a host CPU comes and goes.
const CHANGES: u32 = 40;

/// Not a test of its own: a guest's process.
#[test]
fn guest_process() {
    guest::become_guest();
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task")
        .expect("of this process")
        .count()
}

/// The tests count threads of this process, so they are one test.
#[test]
fn a_pool_gets_and_gives_up_a_host_cpu_while_guests_run() {
    let Some((pool, cpus, reader, [first, second])) = ServicePool::start_with_another() else {
        eprintln!("this host has one CPU, so nothing is tested");
        return;
    };
    assert_eq!(cpus.list(), [first]);
    assert!(matches!(cpus.add(first), Err(PoolCpuError::Taken(cpu)) if cpu == first));
    assert!(matches!(
        cpus.remove(second),
        Err(PoolCpuError::NotThere(..))
    ));
    assert!(matches!(cpus.remove(first), Err(PoolCpuError::Last(cpu)) if cpu == first));
    assert!(matches!(cpus.add(100_000), Err(PoolCpuError::NoPlace(_))));

    let mut busy = pool.guest("busy", Behaviour::Busy, 3, None);
    let mut halts = pool.guest("halts", Behaviour::Halts, 2, Some("1ms/50ms,hard"));
    busy.progress(4);
    let before = threads();
    for _ in 0..CHANGES {
        cpus.add(second).expect("nobody has it");
        assert_eq!(cpus.list(), [first, second]);
        until("vCPUs run on both", || {
            let decisions = reader.decisions();
            decisions.len() == 2 && decisions.iter().all(|&(_, count)| count > 4)
        });
        cpus.remove(second).expect("nothing needs it");
        assert_eq!(cpus.list(), [first]);
        assert_eq!(reader.decisions().len(), 1);
    }
    until("threads are as before", || threads() == before);

    // Two that do not fit on one host CPU.
    cpus.add(second).expect("nobody has it");
    let half = pool.guest("half", Behaviour::Busy, 1, Some("60ms/100ms,hard"));
    let other = pool.guest("other", Behaviour::Busy, 1, Some("60ms/100ms,hard"));
    let refusal = cpus
        .remove(second)
        .expect_err("both need a CPU")
        .to_string();
    for part in ["other/0 would not fit", "room for reservations of 95.0 %"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert_eq!(cpus.list(), [first, second]);
    other.kill().1.expect("it was there");
    // What it has reserved counts until its period is over.
    until("the reservation is free", || match cpus.remove(second) {
        Ok(()) => true,
        Err(PoolCpuError::NoBandwidth { vcpus, .. }) => {
            assert_eq!(vcpus, None);
            false
        }
        Err(error) => panic!("{error}"),
    });

    // One that may run nowhere else.
    cpus.add(second).expect("nobody has it");
    let pinned = VcpuChange::HostCpus(Some(vec![second]));
    pool.handle.set("half", None, &pinned).expect("it fits");
    let refusal = cpus.remove(second).expect_err("it is pinned").to_string();
    assert!(
        refusal.contains("only one on which half/0 may run"),
        "{refusal}"
    );
    let anywhere = VcpuChange::HostCpus(None);
    pool.handle.set("half", None, &anywhere).expect("it fits");
    until("the CPUs that it may use have changed", || {
        match cpus.remove(first) {
            Ok(()) => true,
            Err(PoolCpuError::Pinned { .. } | PoolCpuError::NoBandwidth { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    });
    // The pool has another host CPU than at its start.
    assert_eq!(cpus.list(), [second]);
    halts.progress(1);
    busy.progress(1);
    for guest in [busy, halts, half] {
        guest.kill().1.expect("it was there");
    }
    assert!(pool.names().is_empty());
    let report = pool.runner.stop();
    assert!(report.executors.len() > CHANGES as usize);
}
