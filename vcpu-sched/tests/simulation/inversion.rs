//! Waiting for a preempted or throttled holder: with proxying as long as the critical section,
//! without it as long as the holder is kept from running.

use crate::{MS, US, hard};
use vcpu_sched::sim::{Costs, LockKind, Outcome, Script, Simulation, SplitMix64, Step};
use vcpu_sched::{Config, Event, Ns, SchedParams, VcpuId};

const KINDS: [LockKind; 3] = [LockKind::Ticket, LockKind::TestAndSet, LockKind::Mutex];

fn config(cpus: usize, proxy: bool) -> Config {
    Config {
        proxy,
        // The cure, not the prevention, is what is tested here.
        defer_ns: None,
        ..Config::new(cpus)
    }
}

/// A holder with 1 ms in 100 that holds a lock for `section`, and a waiter with 5 ms in 10 that takes the lock
/// now and then, beside a best-effort hog. Returns the waiter's longest wait.
fn throttled_holder(kind: LockKind, proxy: bool, section: Ns, costs: Costs) -> Ns {
    let mut sim = Simulation::with_events(config(1, proxy), costs, ());
    let guest = sim.guest();
    let lock = sim.lock(guest, kind);
    let holder = Script::forever([
        Step::Lock(lock),
        Step::Compute(section),
        Step::Unlock(lock),
        Step::Compute(300 * US),
    ]);
    let waiter = Script::forever([
        Step::Sleep(3 * MS),
        Step::Lock(lock),
        Step::Compute(10 * US),
        Step::Unlock(lock),
    ]);
    sim.vcpu(guest, hard(MS, 100 * MS), holder).unwrap();
    let waiter = sim.vcpu(guest, hard(5 * MS, 10 * MS), waiter).unwrap();
    let stranger = sim.guest();
    let weight = SchedParams::BestEffort { weight: 100 };
    sim.vcpu(stranger, weight, Script::hog()).unwrap();
    let outcome = sim.run(2_000 * MS);
    assert!(!proxy || outcome.vcpu(waiter).acquisitions > 200);
    outcome.vcpu(waiter).wait_max_ns
}

#[test]
fn wait_for_a_throttled_holder_is_bounded_by_the_critical_section() {
    let mut random = SplitMix64::new(1);
    for kind in KINDS {
        for _ in 0..30 {
            let section = random.within(50 * US, 2 * MS);
            let wait = throttled_holder(kind, true, section, Costs::default());
            assert!(
                wait <= section,
                "{kind:?}: {wait} for a section of {section}"
            );
        }
    }
}

#[test]
fn with_real_costs_the_bound_grows_by_a_few_switches() {
    let costs = Costs::typical();
    let few = 4 * (costs.switch_ns + costs.kick_ns);
    for kind in KINDS {
        let wait = throttled_holder(kind, true, MS, costs);
        assert!(wait <= MS + few, "{kind:?}: {wait}");
    }
}

#[test]
fn without_proxying_the_wait_is_as_long_as_the_throttling() {
    for kind in KINDS {
        let wait = throttled_holder(kind, false, 700 * US, Costs::default());
        assert!(wait >= 90 * MS, "{kind:?}: {wait}");
    }
}

/// Three vCPUs as in the textbook: the low one holds the lock, the middle one only computes, and the high one
/// waits.
fn textbook(proxy: bool) -> Ns {
    let mut sim = Simulation::with_events(config(1, proxy), Costs::default(), ());
    let guest = sim.guest();
    let lock = sim.lock(guest, LockKind::Mutex);
    let low = Script::once([Step::Lock(lock), Step::Compute(2 * MS), Step::Unlock(lock)]);
    let middle = Script::once([Step::Sleep(500 * US), Step::Compute(20 * MS)]);
    let high = Script::once([
        Step::Sleep(MS),
        Step::Lock(lock),
        Step::Compute(MS),
        Step::Unlock(lock),
    ]);
    sim.vcpu(guest, hard(5 * MS, 200 * MS), low).unwrap();
    sim.vcpu(guest, hard(25 * MS, 100 * MS), middle).unwrap();
    let high = sim.vcpu(guest, hard(5 * MS, 10 * MS), high).unwrap();
    sim.run(500 * MS).vcpu(high).wait_max_ns
}

#[test]
fn middle_vcpu_delays_the_high_one_only_without_proxying() {
    assert_eq!(textbook(true), 1_500 * US, "what was left of the section");
    assert!(
        textbook(false) >= 20 * MS,
        "all that the middle one computes"
    );
}

/// More vCPUs than CPUs, all of which contend for a lock.
fn fight(kind: LockKind, proxy: bool, vcpus: u64) -> Outcome<Vec<(Ns, Event)>> {
    let mut sim = Simulation::new(config(2, proxy), Costs::typical());
    let guest = sim.guest();
    let lock = sim.lock(guest, kind);
    for index in 0..vcpus {
        let script = Script::forever([
            Step::Lock(lock),
            Step::Compute(2 * US),
            Step::Unlock(lock),
            Step::Compute(2 * US + index),
        ]);
        let weight = SchedParams::BestEffort { weight: 100 };
        sim.vcpu(guest, weight, script).unwrap();
    }
    sim.run(1_000 * MS)
}

fn acquisitions<E>(outcome: &Outcome<E>) -> u64 {
    outcome.vcpus.iter().map(|vcpu| vcpu.acquisitions).sum()
}

#[test]
fn overcommitted_ticket_lock_collapses_only_without_proxying() {
    let limit = acquisitions(&fight(LockKind::Ticket, false, 2));
    let without = acquisitions(&fight(LockKind::Ticket, false, 4));
    let with = acquisitions(&fight(LockKind::Ticket, true, 4));
    println!("ticket: limit {limit}, without {without}, with {with}");
    assert!(without * 100 < limit, "{without} of {limit}");
    assert!(with > 10 * without, "{with} and not {without}");
}

#[test]
fn carried_holder_of_a_test_and_set_lock_keeps_most_of_the_throughput() {
    let limit = acquisitions(&fight(LockKind::TestAndSet, false, 2));
    let with = acquisitions(&fight(LockKind::TestAndSet, true, 4));
    println!("test-and-set: limit {limit}, with {with}");
    assert!(with * 10 > limit * 8, "{with} of {limit}");
}

#[test]
fn same_scenario_gives_the_same_trace() {
    let (one, other) = (
        fight(LockKind::Ticket, true, 5),
        fight(LockKind::Ticket, true, 5),
    );
    assert!(one.events.len() > 1_000);
    assert_eq!(one, other);
}

#[test]
fn deferral_prevents_what_proxying_would_cure() {
    let run = |defer_ns| {
        let config = Config {
            defer_ns,
            slice_ns: MS,
            ..Config::new(1)
        };
        let mut sim = Simulation::with_events(config, Costs::default(), ());
        let guest = sim.guest();
        let lock = sim.lock(guest, LockKind::TestAndSet);
        for _ in 0..2 {
            let script = Script::forever([
                Step::Lock(lock),
                Step::Compute(7_310),
                Step::Unlock(lock),
                Step::Compute(3_170),
            ]);
            let weight = SchedParams::BestEffort { weight: 1 };
            sim.vcpu(guest, weight, script).unwrap();
        }
        let outcome = sim.run(1_000 * MS);
        let holder = |v: u32| outcome.vcpu(VcpuId(v)).counters;
        (
            holder(0).holder_preemptions + holder(1).holder_preemptions,
            holder(0).deferrals + holder(1).deferrals,
            holder(0).deferrals_expired + holder(1).deferrals_expired,
        )
    };
    let (preempted, deferred, _) = run(None);
    assert!(preempted > 100 && deferred == 0, "{preempted} {deferred}");
    let (preempted, deferred, expired) = run(Some(50 * US));
    assert!(deferred > 100 && expired == 0, "{deferred} {expired}");
    assert_eq!(preempted, 0);
}
