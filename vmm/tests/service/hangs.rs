//! The pool hangs: its guests run on without it, and are back when it goes on.

use super::gap::VcpuThread;
use super::locks::Locks;
use super::pool::ServicePool;
use super::promises::{HARD, assert_counters_add_up};
use crate::common::number;

/// CPU time of the guest's vCPU in the pool's account, ns.
fn ran(pool: &ServicePool, name: &str) -> u64 {
    let snapshot = pool.snapshot();
    let vcpus = snapshot["vcpus"].as_array().expect("vCPUs").iter();
    let own = vcpus.filter(|vcpu| vcpu["guest"] == name);
    own.map(|vcpu| number(vcpu, "ran_ns")).sum()
}

#[test]
fn guests_of_a_pool_that_is_stopped_run_on_alone_and_are_regained_when_it_continues() {
    let pool = ServicePool::start("hangs");
    let mut hard = pool.vm("hard", &HARD);
    let mut locks = [Locks::ringing(&pool), Locks::halting(&pool)];
    pool.until_joined(&mut hard);
    for _ in 0..2 {
        pool.signal(libc::SIGSTOP);
        hard.until_said(&pool, "hung");
        let thread = VcpuThread::of(hard.process.pid());
        let before = thread.ran_ns();
        while thread.ran_ns() < before + 50_000_000 {
            assert!(!hard.has_ended(), "it runs on");
            std::thread::yield_now();
        }
        pool.signal(libc::SIGCONT);
        hard.until_said(&pool, "joined its pool again");
        pool.until_joined(&mut hard);
        let before = ran(&pool, "hard");
        pool.until("the pool runs it again", |pool| {
            (ran(pool, "hard") > before + 3_000_000).then_some(())
        });
        hard.forget_said();
        for locks in &mut locks {
            locks.until_joined_again(&pool);
            locks.go_on(&pool);
        }
        assert_counters_add_up(&pool, "hard");
    }
    let log = pool.log();
    assert!(!log.contains("process has failed"), "{log}");
    for locks in locks {
        locks.finish();
    }
    hard.power_off(&pool);
    pool.until_listed(&[]);
}

#[test]
fn a_pool_reads_its_grants_again_at_a_hangup_and_goes_on() {
    let pool = ServicePool::start("reloads");
    let guest = pool.vm("web", &["--cmdline", "workload=hog seconds=0"]);
    pool.until_listed(&["web"]);
    pool.signal(libc::SIGHUP);
    pool.until("the grants are read again", |pool| {
        pool.log()
            .contains("the grants were read again")
            .then_some(())
    });
    assert_eq!(pool.names(), ["web"]);
    guest.power_off(&pool);
}
