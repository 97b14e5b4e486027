//! The pool is killed and started again while its guests run.

use std::time::Instant;

use baton_api::Guest;

use super::gap::{self, VcpuThread};
use super::locks::Locks;
use super::pool::{ServicePool, number_of};
use super::promises::{HARD, assert_counters_add_up};
use super::random::Random;
use crate::common::first_cpu;

/// The longest time between the start of a pool and its end, us.
const LONGEST_LIFE: u64 = 400_000;

/// What a guest claims, and its process.
fn claims(guest: &Guest) -> String {
    let vcpus = guest.vcpus.iter();
    let shares: Vec<_> = vcpus
        .map(|vcpu| (&vcpu.reservation, vcpu.weight, &vcpu.host_cpus))
        .collect();
    format!("{} {:?} {shares:?}", guest.name, guest.pid)
}

/// Ends the pool, as a kill or as a service manager does, and starts it again. Returns how long after a kill the vCPU
/// of `thread` has run for a millisecond.
fn restart(
    pool: &mut ServicePool,
    random: &mut Random,
    thread: &VcpuThread,
) -> Option<std::time::Duration> {
    let killed = Instant::now();
    let gap = match random.below(4) {
        0 => {
            pool.terminate();
            None
        }
        _ => {
            pool.kill();
            Some(thread.runs_after(killed))
        }
    };
    pool.start_again();
    gap
}

#[test]
fn guests_whose_pool_is_killed_and_started_again_go_on_and_rejoin_with_their_claims() {
    let restarts = number_of("BATON_RESTARTS", 10);
    let mut random = Random::new();
    let mut pool = ServicePool::start("restarts");
    let mut hard = pool.vm("hard", &HARD);
    let cpu = first_cpu();
    let weighted = ["--weight", "50", "--host-cpus", &cpu];
    let halting = ["--cmdline", "workload=halt count=1000000000"];
    let mut sleeper = pool.vm("sleeper", &[&weighted[..], &halting].concat());
    let mut locks = [Locks::ringing(&pool), Locks::halting(&pool)];
    let own = ["hard", "sleeper"];
    let claims_of_own = |pool: &ServicePool| -> Option<Vec<String>> {
        let guests = pool.guests().into_iter();
        let own: Vec<_> = guests.filter(|guest| own.contains(&&*guest.name)).collect();
        (own.len() == 2).then(|| own.iter().map(claims).collect())
    };
    let first = pool.until("both have joined", claims_of_own);
    println!("{first:?}");

    let thread = VcpuThread::of(hard.process.pid());
    let mut gaps = Vec::new();
    for number in 1..=restarts {
        random.pass_time(LONGEST_LIFE);
        gaps.extend(restart(&mut pool, &mut random, &thread));
        // One time in four, before the guests have joined again.
        if number < restarts && random.below(4) == 0 {
            continue;
        }
        assert_eq!(pool.until("both have joined again", claims_of_own), first);
        for locks in &mut locks {
            locks.until_joined_again(&pool);
            locks.go_on(&pool);
        }
        assert_counters_add_up(&pool, "hard");
    }
    for guest in [&mut hard, &mut sleeper] {
        assert!(!guest.has_ended(), "guest {} has ended", guest.name);
    }
    gap::print(
        "from the kill of the pool until a guest has run for 1 ms",
        gaps,
    );
    let done = locks.map(|locks| locks.finish());
    println!("{restarts} restarts; {done:?} guests with locks came to their end");
    hard.power_off(&pool);
    sleeper.power_off(&pool);
    pool.until_listed(&[]);
}
