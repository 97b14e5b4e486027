//! Processes of guests are killed at random moments.

use baton_api::EventKind;

use super::events::Events;
use super::leftovers::{Leftovers, memory};
use super::locks::Locks;
use super::pool::{GuestProcess, ServicePool, number_of};
use super::promises::{HARD, assert_counters_add_up, print};
use super::random::Random;
use crate::common::number;

/// Guests that are killed: their vCPUs hold locks, wait, ring, sleep in a halt, or are throttled, and most claim CPU time.
const VICTIMS: [&[&str]; 5] = [
    &[
        "--cpus",
        "2",
        "--reservation",
        "1ms/20ms",
        "--cmdline",
        "lock=ticket hints=on seconds=0",
    ],
    &[
        "--cpus",
        "3",
        "--cmdline",
        "lock=mutex idle=hlt hints=on seconds=0",
    ],
    &[
        "--cpus",
        "2",
        "--cmdline",
        "lock=mcs hints=on wait=halt seconds=0",
    ],
    &[
        "--reservation",
        "1ms/10ms,hard",
        "--cmdline",
        "workload=hog seconds=0",
    ],
    &[
        "--cpus",
        "2",
        "--vcpu-reservation",
        "0=1ms/30ms",
        "--cmdline",
        "workload=throttled-holder seconds=0",
    ],
];
/// How their names begin.
const VICTIM: &str = "victim-";
/// How many of them there are at a time, at most. Their claims fit; those of many more would not.
const AT_A_TIME: usize = 3;
/// The longest time between two kills, us.
const LONGEST_PAUSE: u64 = 150_000;

/// Kills so many guests. Each time a new one starts, some time passes, and one of those that are there is killed.
fn kill(
    pool: &ServicePool,
    locks: &mut Locks,
    kills: u64,
    random: &mut Random,
    victims: &mut Vec<GuestProcess>,
) {
    for _ in 0..kills {
        let kind = random.below(VICTIMS.len() as u64) as usize;
        let number = random.below(u64::MAX);
        victims.push(pool.vm(&format!("{VICTIM}{number:x}"), VICTIMS[kind]));
        random.pass_time(LONGEST_PAUSE);
        if victims.len() == AT_A_TIME {
            let at = random.below(AT_A_TIME as u64) as usize;
            assert!(
                !victims[at].has_ended(),
                "it was not killed: {:?}",
                victims.swap_remove(at).finish()
            );
            // Dropped, which kills it and waits for it.
            victims.swap_remove(at);
        }
        locks.go_on(pool);
    }
}

/// How much CPU time vCPUs of the guest `name` have been given by others for their locks, ns.
fn donated(pool: &ServicePool, name: &str) -> u64 {
    let snapshot = pool.snapshot();
    let vcpus = snapshot["vcpus"].as_array().expect("vCPUs").iter();
    let own = vcpus.filter(|vcpu| vcpu["guest"] == name);
    own.map(|vcpu| number(vcpu, "received_ns")).sum()
}

#[test]
fn guests_that_are_killed_leave_nothing_behind_and_take_nothing_from_the_others() {
    let kills = number_of("BATON_KILLS", 40);
    let mut random = Random::new();
    let pool = ServicePool::start("kills");
    let hard = pool.vm("hard", &HARD);
    let mut locks = Locks::ringing(&pool);
    let survivors = ["hard", locks.name()];
    pool.until_listed(&survivors);
    let events = Events::follow(&pool, locks.name());
    // What the pool allocates once is allocated afterwards.
    let mut victims = Vec::new();
    kill(&pool, &mut locks, 10, &mut random, &mut victims);
    victims.clear();
    locks.go_on(&pool);
    pool.until_listed(&survivors);
    // The list is without a guest a moment before the thread that takes it out ends.
    let before = pool.until("no guest is about to leave", |pool| {
        let now = Leftovers::of(pool);
        (!now.has_leaving()).then_some(now)
    });
    let memory_before = memory(&pool);
    let earlier = assert_counters_add_up(&pool, "hard");

    let mut received = 0;
    for left in (0..kills).rev() {
        kill(&pool, &mut locks, 1, &mut random, &mut victims);
        received = received.max(donated(&pool, locks.name()));
        if left % 50 == 0 {
            assert_counters_add_up(&pool, "hard");
        }
    }
    victims.clear();
    locks.go_on(&pool);
    pool.until_listed(&survivors);
    let mut last = None;
    pool.until("nothing is left of them", |pool| {
        locks.go_on(pool);
        let now = Leftovers::of(pool);
        let same = now == before;
        if !same && last.as_ref() != Some(&now) {
            println!("there is {now:?}, and was {before:?}");
            last = Some(now);
        }
        same.then_some(())
    });
    let later = assert_counters_add_up(&pool, "hard");
    for vcpu in [&earlier, &later] {
        print(vcpu);
    }
    assert!(received > 0, "holders ran on the budgets of their waiters");
    let grown = memory(&pool).saturating_sub(memory_before);
    println!("{kills} guests killed, of {memory_before} KiB the pool has grown by {grown} KiB");
    assert!(grown <= 4096 + 20 * kills, "{grown} KiB");
    assert_events_add_up(&pool, &events, &mut locks);

    let done = locks.finish();
    println!("{done} guests with locks came to their end meanwhile");
    hard.power_off(&pool);
    pool.until_listed(&[]);
}

/// Asserts that each guest that has joined has left, apart from those that are there, and that no process was found to
/// be wrong.
fn assert_events_add_up(pool: &ServicePool, events: &Events, locks: &mut Locks) {
    // Two guests were there when the events began, and two are there.
    pool.until("as many guests have left as have joined", |pool| {
        locks.go_on(pool);
        let joined = events.count(|event| matches!(event, EventKind::Joined { .. }));
        let ended = events.count(|event| matches!(event, EventKind::Ended { .. }));
        (joined == ended).then_some(())
    });
    let expected = |event: &EventKind| match event {
        EventKind::Joined { .. } | EventKind::Ended { .. } | EventKind::Changed { .. } => true,
        // It was killed while it joined. One that was refused for its claims would have ended by itself.
        EventKind::Refused { guest, .. } => guest.starts_with(VICTIM),
        _ => false,
    };
    let wrong: Vec<_> = events
        .seen()
        .into_iter()
        .filter(|event| !expected(event))
        .collect();
    assert_eq!(wrong, []);
}
