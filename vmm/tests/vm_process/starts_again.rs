//! A guest starts again in its process, and stays in its pool.

use baton_link::message::{Order, PoolMessage};

use crate::common::reset_kernel::{RESET, WRITES, kernel};
use crate::common::{Running, baton, number, start};
use crate::fake_pool::{FakeMember, FakePool};
use crate::{ENDLESS, HALTS, MUTEX, turns, vm};

/// A guest that prints `up` and resets itself.
fn resetting(pool: &FakePool, name: &str, flags: &[&str]) -> Running {
    let kernel = kernel(&format!("{name}.elf"), RESET);
    let path = pool.path().to_string_lossy();
    let words = ["vm", "--pool", &path, "--name", "db", "--kernel", &kernel];
    start(&[&words[..], &["--summary", "json"], flags].concat())
}

/// Runs the guest until it has started again `restarts` times. The test ends with it if it does not.
fn until_restarted(member: &mut FakeMember, restarts: u32) {
    let left = member.run_while(|counts| counts.restarted.last().copied() < Some(restarts));
    assert!(!left, "{:?}", member.counts);
}

#[test]
fn a_guest_that_resets_itself_starts_again_on_the_same_threads() {
    let pool = FakePool::listen("resets");
    let guest = resetting(&pool, "vm-resets", &[]);
    let mut member = pool.admit();
    assert_eq!(member.request.restarts, 0);
    until_restarted(&mut member, 3);
    assert_eq!(member.counts.restarted, [1, 2, 3]);
    assert!(
        member
            .counts
            .restarting
            .iter()
            .all(|end| end == "reset itself")
    );
    guest.signal(libc::SIGTERM);
    assert!(member.run_to_the_end().ok);
    let ran = guest.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.complaints().is_empty(), "{ran:?}");
    let summary = ran.summary();
    let restarts = number(&summary["guests"][0], "restarts");
    assert!(restarts >= 3, "{summary}");
    // The numbers of its vCPU are those of all starts.
    let writes = number(&summary["guests"][0]["vcpus"][0]["exits"], "port_out");
    assert!(
        (restarts * WRITES..=(restarts + 1) * WRITES).contains(&writes),
        "{summary}"
    );
}

#[test]
fn a_guest_that_is_to_end_by_its_reset_leaves_the_pool() {
    let pool = FakePool::listen("reset-ends");
    let guest = resetting(&pool, "vm-reset-ends", &["--on-reboot", "end"]);
    let mut member = pool.admit();
    let ended = member.run_to_the_end();
    assert_eq!((ended.ok, &*ended.text), (true, "reset itself"));
    let ran = guest.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.summary()["guests"][0]["restarts"], 0);
}

#[test]
fn the_order_to_reset_starts_a_guest_again_whatever_its_vcpus_do() {
    for (name, cmdline) in [("orders", MUTEX), ("orders-halted", HALTS)] {
        let pool = FakePool::listen(name);
        // The order counts also where a guest's own reset ends it.
        let endless = cmdline.replace("300", "1000000000");
        let path = pool.path().to_string_lossy();
        let words = ["vm", "--pool", &path, "--cpus", "4", "--on-reboot", "end"];
        let guest = start(&[&words[..], &["--summary", "json", "--cmdline", &endless]].concat());
        let mut member = pool.admit();
        for restarts in 1..=5 {
            turns(&mut member, 50);
            member.order(Order::Reset);
            until_restarted(&mut member, restarts);
        }
        turns(&mut member, 50);
        assert_eq!(member.counts.restarting, ["reset by request"; 5]);
        member.order(Order::PowerOff);
        let ended = member.run_to_the_end();
        assert!(ended.ok, "{ended:?}");
        let ran = guest.finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.complaints().is_empty(), "{ran:?}");
        assert_eq!(ran.summary()["guests"][0]["restarts"], 5);
    }
}

#[test]
fn a_guest_without_a_pool_starts_again_and_joins_with_the_number_of_its_starts() {
    let pool = FakePool::listen("resets-alone");
    let path = pool.path().to_owned();
    let guest = resetting(&pool, "vm-resets-alone", &[]);
    let mut member = pool.admit();
    until_restarted(&mut member, 1);
    drop((member, pool));
    let pool = FakePool::listen_at(path);
    let mut member = pool.admit();
    let before = member.request.restarts;
    assert!(before >= 1);
    until_restarted(&mut member, before + 2);
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn a_guest_that_is_powered_off_while_it_waits_for_its_next_start_does_not_start_again() {
    let pool = FakePool::listen("off-between");
    let guest = resetting(&pool, "vm-off-between", &[]);
    let mut member = pool.admit();
    // The waits get longer, so that the order comes in one of them.
    until_restarted(&mut member, 3);
    let ends = member.counts.restarting.len();
    assert!(!member.run_while(|counts| counts.restarting.len() == ends));
    member.order(Order::PowerOff);
    let ended = member.run_to_the_end();
    assert!(ended.ok, "{ended:?}");
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn a_guest_that_was_paused_when_its_pool_went_stays_so_and_joins_as_a_paused_one() {
    let pool = FakePool::listen("paused");
    let path = pool.path().to_owned();
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    assert!(!member.request.is_paused);
    turns(&mut member, 20);
    member.send(&PoolMessage::Paused(true));
    drop((member, pool));
    let pool = FakePool::listen_at(path.clone());
    let mut member = pool.admit();
    assert!(member.request.is_paused);
    member.send(&PoolMessage::Paused(false));
    turns(&mut member, 20);
    drop((member, pool));
    let pool = FakePool::listen_at(path);
    let mut member = pool.admit();
    assert!(!member.request.is_paused);
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    let ran = guest.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    for sentence in ["it is paused, and stays so", "it runs on under the host"] {
        assert_eq!(ran.stderr.matches(sentence).count(), 1, "{ran:?}");
    }
}

#[test]
fn the_flags_of_the_restart_policy_are_those_of_a_run() {
    let ran = baton(&["vm", "--restart", "sometimes"]);
    assert!(ran.stderr.contains("never, on-failure, always"), "{ran:?}");
}
