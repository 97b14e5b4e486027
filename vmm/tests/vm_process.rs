//! `baton vm`: a guest in a process of its own, run by a pool that a test is.

mod common;
#[path = "vm_process/fake_pool.rs"]
mod fake_pool;
#[path = "vm_process/starts_again.rs"]
mod starts_again;

use baton_link::message::{Order, PoolMessage, Share};
use common::{Ran, Running, assert_locks_held, number, start, sum};
use fake_pool::{FakeMember, FakePool};
use vcpu_sched::{Reservation, SchedParams};

/// A guest of four vCPUs whose waiters idle by doorbells.
const MUTEX: &str = "lock=mutex hints=on acquisitions=300";
/// The same, and idle vCPUs halt.
const HALTS: &str = "lock=mutex idle=hlt hints=on acquisitions=300";
/// A guest that does not end by itself.
const ENDLESS: &str = "workload=hog seconds=0";

/// Starts the guest of `cmdline`, which is to join `pool`.
fn vm(pool: &FakePool, cmdline: &str) -> Running {
    let path = pool.path().to_string_lossy();
    let words = ["vm", "--pool", &path, "--name", "db", "--cpus", "4"];
    let more = ["--summary", "json", "--weight", "50", "--cmdline", cmdline];
    start(&[&words[..], &more].concat())
}

fn assert_well(ran: &Ran, acquisitions: u64) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = ran.summary();
    assert_eq!(summary["sched"], "pool");
    assert_eq!(summary["guests"][0]["end"], "done");
    assert_locks_held(&summary, acquisitions);
}

/// Gives so many turns, in which the guest does not come to its end.
fn turns(member: &mut FakeMember, turns: u64) {
    let until = member.counts.turns + turns;
    assert!(!member.run_while(|counts| counts.turns < until));
}

#[test]
fn a_guest_finishes_its_work_in_turns_that_the_pool_gives() {
    let pool = FakePool::listen("work");
    let guest = vm(&pool, MUTEX);
    let mut member = pool.admit();
    assert_eq!((&*member.request.name, member.request.weight), ("db", 50));
    let ended = member.run_to_the_end();
    assert_eq!((ended.ok, &*ended.text), (true, "done"));
    assert_eq!(member.counts.hints, ["page"]);
    let ran = guest.finish();
    assert_well(&ran, 1_200);
    assert!(ran.complaints().is_empty(), "{ran:?}");
    let guest = &ran.summary()["guests"][0];
    let vcpus = guest["vcpus"].as_array().expect("vCPUs").iter();
    let rings = vcpus.map(|vcpu| number(&vcpu["exits"], "doorbells"));
    // A wake may have been lost with an earlier pool, so the first idle doorbell of each vCPU ends at once.
    let own = rings.sum::<u64>() - member.counts.rings;
    assert!((1..=4).contains(&own), "{guest}");
    let counted = fake_pool::counted();
    assert_eq!(sum(guest, "ran_ns"), 4 * counted.runtime_ns, "{guest}");
    assert_eq!(sum(guest, "proxied"), 4 * counted.proxied, "{guest}");
}

#[test]
fn a_guest_that_has_lost_a_pool_does_not_take_what_the_next_has_counted_for_all() {
    let pool = FakePool::listen("part");
    let path = pool.path().to_owned();
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    drop((member, pool));
    let pool = FakePool::listen_at(path);
    let mut member = pool.admit();
    turns(&mut member, 50);
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    let ran = guest.finish();
    let guest = &ran.summary()["guests"][0];
    assert_eq!(sum(guest, "proxied"), 0, "{guest}");
    assert!(
        sum(guest, "ran_ns") > 4 * fake_pool::counted().runtime_ns && sum(guest, "waited_ns") > 0,
        "{guest}"
    );
}

#[test]
fn vcpus_halt_sleep_and_wake_as_the_pool_commands() {
    let pool = FakePool::listen("halts");
    let guest = vm(&pool, HALTS);
    let mut member = pool.admit();
    assert!(member.run_to_the_end().ok);
    let counts = &member.counts;
    assert!(counts.halts > 0 && counts.wakes > 0, "{counts:?}");
    assert_well(&guest.finish(), 1_200);
}

#[test]
fn a_guest_whose_pool_dies_goes_on_by_itself() {
    for (name, cmdline) in [("dies", MUTEX), ("dies-halted", HALTS)] {
        let pool = FakePool::listen(name);
        let guest = vm(&pool, cmdline);
        let mut member = pool.admit();
        turns(&mut member, 20);
        drop((member, pool));
        let ran = guest.finish();
        assert_well(&ran, 1_200);
        assert!(ran.stderr.contains("its pool is gone"), "{ran:?}");
    }
}

/// A way in which a pool is lost.
type Loss = fn(&mut FakeMember);

#[test]
fn a_guest_joins_again_with_the_same_claims_when_its_pool_is_back() {
    let losses: [Loss; 3] = [|_| {}, |member| member.go_away(), FakeMember::stop_one];
    for cmdline in [MUTEX, HALTS] {
        let mut pool = FakePool::listen("back");
        let path = pool.path().to_owned();
        let guest = vm(&pool, &cmdline.replace("300", "1000000000"));
        let mut member = pool.admit();
        let claims = member.request.clone();
        for lose in losses {
            turns(&mut member, 50);
            lose(&mut member);
            drop((member, pool));
            pool = FakePool::listen_at(path.clone());
            member = pool.admit();
            assert_eq!(member.request.vcpus, claims.vcpus);
            assert_eq!(member.request.name, claims.name);
            assert_eq!(member.request.weight, claims.weight);
        }
        turns(&mut member, 50);
        member.order(Order::PowerOff);
        assert!(member.run_to_the_end().ok);
        let ran = guest.finish();
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.summary()["guests"][0]["ok"], true);
        for (sentence, times) in [
            ("has joined its pool again", 3),
            ("its pool ends", 1),
            ("the pool runs the guest no longer", 1),
        ] {
            assert_eq!(ran.stderr.matches(sentence).count(), times, "{ran:?}");
        }
    }
}

#[test]
fn a_guest_joins_again_with_what_the_pool_has_given_it_meanwhile() {
    let pool = FakePool::listen("changed");
    let path = pool.path().to_owned();
    let guest = vm(&pool, &MUTEX.replace("300", "1000000000"));
    let mut member = pool.admit();
    let reservation = Reservation::hard(3_000_000, 10_000_000).expect("it fits");
    let mut shares = shares(&member);
    shares[0] = Share::of(SchedParams::Reserved(reservation), Some(vec![0]));
    shares[1] = Share::of(SchedParams::BestEffort { weight: 7 }, None);
    member.send(&PoolMessage::Claims(shares.clone()));
    turns(&mut member, 50);
    drop((member, pool));
    let pool = FakePool::listen_at(path);
    let mut member = pool.admit();
    assert_eq!(self::shares(&member), shares);
    turns(&mut member, 50);
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    assert_eq!(guest.finish().code, 0);
}

/// What the guest has requested for its vCPUs.
fn shares(member: &FakeMember) -> Vec<Share> {
    let vcpus = member.request.vcpus.iter();
    vcpus.map(|vcpu| vcpu.share.clone()).collect()
}

#[test]
fn a_guest_that_cannot_join_again_goes_on_and_prints_the_sentence_once() {
    let pool = FakePool::listen("claims");
    let guest = vm(&pool, &MUTEX.replace("300", "20000"));
    let mut member = pool.admit();
    turns(&mut member, 50);
    drop(member);
    pool.refuse("its reservations do not fit", "nothing would");
    let ran = guest.finish();
    assert_well(&ran, 80_000);
    let sentence = "cannot join again: the pool refused the guest: its reservations do not fit";
    assert_eq!(ran.stderr.matches(sentence).count(), 1, "{ran:?}");
}

#[test]
fn an_order_ends_the_guest() {
    let pool = FakePool::listen("order");
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    member.order(Order::PowerButton);
    turns(&mut member, 50);
    member.order(Order::PowerOff);
    let ended = member.run_to_the_end();
    assert!(ended.ok, "{ended:?}");
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn a_guest_that_has_ended_waits_for_no_command_of_a_pool_that_has_hung_up() {
    let pool = FakePool::listen("hangs-up");
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    member.order(Order::PowerOff);
    assert!(member.hang_up_at_the_end().ok);
    let ran = guest.finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.complaints().is_empty(), "{ran:?}");
}

#[test]
fn a_guests_process_is_in_a_sandbox() {
    let pool = FakePool::listen("sandbox");
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    let process = guest.pid();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
    // Namespaces of its own. A user's process that has given up its privileges may not look.
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    if let (Ok(own), Ok(of_the_test)) = (mounts(&process.to_string()), mounts("self")) {
        assert_ne!(own, of_the_test);
    }
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn a_guests_process_has_no_sandbox_if_the_user_wants_none() {
    let pool = FakePool::listen("no-sandbox");
    let path = pool.path().to_string_lossy();
    let words = ["vm", "--no-sandbox", "--pool", &path, "--cmdline", ENDLESS];
    let guest = start(&words);
    let mut member = pool.admit();
    let process = guest.pid();
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    assert!(status.contains("Seccomp:\t0"), "{status}");
    member.order(Order::PowerOff);
    assert!(member.run_to_the_end().ok);
    let ran = guest.finish();
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("without a sandbox"), "{ran:?}");
}

#[test]
fn a_signal_ends_a_guest_and_its_membership() {
    let pool = FakePool::listen("signal");
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    guest.signal(libc::SIGTERM);
    assert!(member.run_to_the_end().ok);
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn a_guest_without_a_pool_runs_until_a_signal_ends_it() {
    let pool = FakePool::listen("alone");
    let guest = vm(&pool, ENDLESS);
    let mut member = pool.admit();
    turns(&mut member, 50);
    drop((member, pool));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.finish().code, 0);
}

#[test]
fn the_sentence_of_a_pool_that_refuses_is_the_users() {
    let pool = FakePool::listen("refuses");
    let guest = vm(&pool, ENDLESS);
    pool.refuse("8ms/10ms does not fit", "5ms/10ms would");
    assert_eq!(
        guest.finish().one_sentence(),
        "baton: the pool refused the guest: 8ms/10ms does not fit; 5ms/10ms would"
    );
    let path = pool.path().to_owned();
    drop(pool);
    let ran = common::baton(&["vm", "--pool", &path.to_string_lossy()]);
    let sentence = ran.one_sentence();
    for part in ["no pool can be reached", "baton pool", "--pool"] {
        assert!(sentence.contains(part), "{sentence}");
    }
}
