//! Another policy in the place of the deadline scheduler: round robin, under the same simulator.

use vcpu_sched::sim::{Costs, LockKind, Outcome, Script, Simulation, SplitMix64, Step};
use vcpu_sched::{AdmissionError, Config, CpuId, CpuSet, Ns, PolicyKind, SchedParams, VcpuId};

use crate::{MS, US, hard};

const ANY: SchedParams = SchedParams::BestEffort { weight: 100 };

fn simulation(policy: PolicyKind, cpus: usize) -> Simulation<()> {
    let config = Config {
        defer_ns: None,
        ..Config::new(cpus)
    };
    Simulation::of_policy(policy.pool(config, ()), Costs::default())
}

fn ran(outcome: &Outcome<()>, vcpu: VcpuId) -> Ns {
    outcome.vcpu(vcpu).counters.runtime_ns
}

#[test]
fn round_robin_gives_equal_time_to_vcpus_that_always_run() {
    let mut sim = simulation(PolicyKind::RoundRobin, 2);
    let guest = sim.guest();
    let vcpus: Vec<VcpuId> = (0..6)
        .map(|_| sim.vcpu(guest, ANY, Script::hog()).unwrap())
        .collect();
    let outcome = sim.run(1_200 * MS);
    let slice = Config::new(2).slice_ns;
    for &vcpu in &vcpus {
        assert!(ran(&outcome, vcpu).abs_diff(400 * MS) <= slice, "{vcpu}");
    }
}

#[test]
fn round_robin_refuses_reservations_and_says_what_to_do() {
    let mut sim = simulation(PolicyKind::RoundRobin, 1);
    let guest = sim.guest();
    let refused = sim.vcpu(guest, hard(MS, 10 * MS), Script::hog());
    assert_eq!(refused, Err(AdmissionError::NoReservations));
}

#[test]
fn under_round_robin_a_woken_vcpu_ends_the_run_of_one_that_was_alone() {
    let mut sim = simulation(PolicyKind::RoundRobin, 1);
    let guest = sim.guest();
    sim.vcpu(guest, ANY, Script::hog()).unwrap();
    // Its timer is the only reason for which the hog's CPU picks by itself.
    let late = Script::once([Step::Sleep(900 * MS)]);
    sim.vcpu(guest, ANY, late).unwrap();
    let woken = Script::once([Step::Sleep(100 * MS), Step::Compute(MS)]);
    let woken = sim.vcpu(guest, ANY, woken).unwrap();
    sim.wake_at(woken, 10 * MS);
    let outcome = sim.run(500 * MS);
    assert_eq!(ran(&outcome, woken), MS);
    let slice = Config::new(1).slice_ns;
    assert!(outcome.vcpu(woken).counters.waited_ns <= 3 * slice);
}

/// One CPU, a guest that takes a lock on both vCPUs in turn, and hogs of another guest. Gives the longest wait
/// for the lock.
fn longest_wait(policy: PolicyKind, hogs: usize) -> Ns {
    let mut sim = simulation(policy, 1);
    let guest = sim.guest();
    let lock = sim.lock(guest, LockKind::Ticket);
    let worker = || {
        Script::forever([
            Step::Lock(lock),
            Step::Compute(700 * US),
            Step::Unlock(lock),
            Step::Compute(90 * US),
        ])
    };
    let vcpus = [(); 2].map(|()| sim.vcpu(guest, ANY, worker()).unwrap());
    let others = sim.guest();
    for _ in 0..hogs {
        sim.vcpu(others, ANY, Script::hog()).unwrap();
    }
    let outcome = sim.run(4_000 * MS);
    let waits = vcpus.map(|vcpu| outcome.vcpu(vcpu).wait_max_ns);
    waits.into_iter().max().unwrap_or(0)
}

#[test]
fn a_preempted_holder_costs_a_round_of_the_queue_under_round_robin_and_less_by_proxying() {
    let slice = Config::new(1).slice_ns;
    let hogs = 6;
    let round = longest_wait(PolicyKind::RoundRobin, hogs);
    assert!(round >= hogs as Ns * slice, "{round}");
    let proxied = longest_wait(PolicyKind::Deadline, hogs);
    assert!(proxied < round, "{proxied} {round}");
}

#[test]
fn random_pools_lose_no_vcpu_under_round_robin() {
    for seed in 0..150 {
        let mut random = SplitMix64::new(seed);
        let cpus = random.within(1, 4) as usize;
        let mut sim = simulation(PolicyKind::RoundRobin, cpus);
        let guest = sim.guest();
        let lock = sim.lock(guest, LockKind::Mutex);
        let mut vcpus = Vec::new();
        for _ in 0..random.within(1, 7) {
            let script = Script::forever([
                Step::Compute(random.within(1, 900) * US),
                Step::Lock(lock),
                Step::Compute(random.within(1, 90) * US),
                Step::Unlock(lock),
                Step::Sleep(random.within(1, 9_000) * US),
            ]);
            let pinned = random.one_in(2).then(|| {
                let cpu = CpuId(random.below(cpus as u64) as u32);
                CpuSet::from_iter([cpu])
            });
            vcpus.push(sim.vcpu_on(guest, ANY, pinned, script).unwrap());
        }
        if random.one_in(2) {
            sim.offline(CpuId(0), 30 * MS, 90 * MS);
        }
        if random.one_in(2) {
            sim.remove_at(vcpus[0], 50 * MS);
        }
        // The simulator audits the policy after each event in debug builds.
        let outcome = sim.run(300 * MS);
        for &vcpu in &vcpus[1..] {
            let found = outcome.vcpu(vcpu);
            assert_eq!(found.counters.runtime_ns, found.counters.charged_ns);
            assert!(found.passes > 0, "seed {seed}: {vcpu} never came through");
        }
    }
}
