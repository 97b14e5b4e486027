//! Random pools of everything at once: several CPUs, some of which are offline or given up for a while, pinnings, locks,
//! liars, removals, pauses, changes of reservations, weights and pinnings. The simulator audits the policy at every
//! event in debug builds. Here the sums are checked.

use crate::{MS, US};
use vcpu_sched::sim::{
    Behaviour, Costs, Liar, LockId, LockKind, Outcome, Script, Simulation, SplitMix64, Step,
};
use vcpu_sched::{
    Config, CpuId, CpuSet, Exhaustion, GuestId, Ns, Reservation, SchedParams, VcpuId,
};

fn params(random: &mut SplitMix64) -> SchedParams {
    let period = random.within(500, 50_000) * US;
    let deadline = random.within(period / 2, period);
    let budget = random.within(deadline / 50, deadline / 3).max(10 * US);
    let exhaustion = if random.one_in(3) {
        Exhaustion::Soft
    } else {
        Exhaustion::Hard
    };
    if random.one_in(3) {
        let weight = random.within(1, 10_000) as u32;
        return SchedParams::BestEffort { weight };
    }
    SchedParams::Reserved(Reservation::new(budget, period, deadline, exhaustion).unwrap())
}

/// A script whose locks nest in one order, so that it cannot deadlock.
fn script(random: &mut SplitMix64, locks: &[LockId], peers: &[VcpuId]) -> Script {
    let mut steps = Vec::new();
    let mut held = Vec::new();
    for &lock in locks {
        if random.one_in(2) {
            steps.push(Step::Compute(random.within(1, 300) * US));
        }
        if random.one_in(2) {
            steps.push(Step::Lock(lock));
            held.push(lock);
        }
        if random.one_in(6) {
            steps.push(Step::Sleep(random.within(1, 3_000) * US));
        }
    }
    steps.push(Step::Compute(random.within(1, 100) * US));
    while let Some(lock) = held.pop() {
        steps.push(Step::Unlock(lock));
    }
    match random.below(4) {
        0 => steps.push(Step::Sleep(random.within(0, 5_000) * US)),
        1 => {
            let peer = peers[random.below(peers.len() as u64) as usize];
            steps.extend([Step::Wake(peer), Step::Halt]);
        }
        _ => {}
    }
    Script::forever(steps)
}

fn config(random: &mut SplitMix64) -> Config {
    let cpus = random.within(1, 4) as usize;
    Config {
        proxy: !random.one_in(6),
        defer_ns: (!random.one_in(3)).then_some(50 * US),
        slice_ns: random.within(100, 5_000) * US,
        ..Config::new(cpus)
    }
}

fn some_of(cpus: usize, random: &mut SplitMix64) -> CpuSet {
    let bits = random.within(1, (1 << cpus) - 1);
    let all = CpuSet::first(cpus).iter();
    all.filter(|cpu| bits >> cpu.0 & 1 == 1).collect()
}

/// What its owner changes while the vCPU runs.
fn changes(sim: &mut Simulation<()>, vcpu: VcpuId, cpus: usize, random: &mut SplitMix64, end: Ns) {
    for _ in 0..random.below(4) {
        let at = random.below(end);
        match (random.one_in(3), self::params(random)) {
            (true, _) => sim.set_allowed_at(vcpu, Some(some_of(cpus, random)), at),
            (_, SchedParams::Reserved(reservation)) => {
                sim.set_reservation_at(vcpu, reservation, at);
            }
            (_, SchedParams::BestEffort { weight }) => sim.set_weight_at(vcpu, weight, at),
        }
    }
}

/// Guests that are paused or removed, and CPUs that are offline or not of the pool for a while.
fn interruptions(
    sim: &mut Simulation<()>,
    guests: &[GuestId],
    cpus: usize,
    random: &mut SplitMix64,
    end: Ns,
) {
    for &guest in guests {
        if random.one_in(3) {
            let (from, to) = (random.below(end), random.below(end));
            sim.pause(guest, from.min(to), from.max(to));
        }
        if random.one_in(8) {
            sim.remove_guest_at(guest, random.below(end));
        }
    }
    if random.one_in(3) {
        let (from, to) = (random.below(end), random.below(end));
        sim.stop_host(from.min(to), from.max(to));
    }
    for cpu in 0..cpus as u32 {
        if random.one_in(3) {
            let (from, to) = (random.below(end), random.below(end));
            sim.offline(CpuId(cpu), from.min(to), from.max(to));
        }
        if random.one_in(3) {
            let (from, to) = (random.below(end), random.below(end));
            sim.without_cpu(CpuId(cpu), from.min(to), from.max(to));
        }
    }
}

fn pool(seed: u64, end: Ns) -> (Outcome<()>, Config, Vec<GuestId>) {
    let mut random = SplitMix64::new(seed);
    let config = config(&mut random);
    let cpus = config.cpus;
    let costs = if random.one_in(2) {
        Costs::default()
    } else {
        Costs::typical()
    };
    let mut sim = Simulation::with_events(config, costs, ());
    let mut next = 0;
    let mut guests = Vec::new();
    for _ in 0..random.within(1, 3) {
        let guest = sim.guest();
        guests.push(guest);
        let kinds = [LockKind::Ticket, LockKind::TestAndSet, LockKind::Mutex];
        let locks: Vec<_> = (0..random.below(4))
            .map(|_| sim.lock(guest, kinds[random.below(3) as usize]))
            .collect();
        let count = random.within(1, 6) as u32;
        let peers: Vec<_> = (next..next + count).map(VcpuId).collect();
        for _ in 0..count {
            let allowed = random.one_in(3).then(|| some_of(cpus, &mut random));
            let behaviour: Behaviour = if random.one_in(5) {
                Liar::new(random.next()).into()
            } else {
                script(&mut random, &locks, &peers).into()
            };
            let params = params(&mut random);
            let Ok(vcpu) = sim.vcpu_on(guest, params, allowed, behaviour) else {
                continue;
            };
            next = vcpu.0 + 1;
            for _ in 0..random.below(4) {
                sim.wake_at(vcpu, random.below(end));
            }
            if random.one_in(5) {
                sim.remove_at(vcpu, random.below(end));
            }
            changes(&mut sim, vcpu, cpus, &mut random, end);
        }
    }
    interruptions(&mut sim, &guests, cpus, &mut random, end);
    (sim.run(end), config, guests)
}

#[test]
fn sums_agree_and_nothing_is_lost_whatever_happens() {
    for seed in 0..400 {
        let end = 100 * MS;
        let (outcome, config, guests) = pool(seed, end);
        for guest in guests {
            let sum = |time: fn(&vcpu_sched::Counters) -> Ns| -> Ns {
                outcome.guest(guest).map(|v| time(&v.counters)).sum()
            };
            assert_eq!(sum(|c| c.charged_ns), sum(|c| c.runtime_ns), "seed {seed}");
            assert_eq!(sum(|c| c.donated_ns), sum(|c| c.received_ns), "seed {seed}");
        }
        let ran: Ns = outcome.vcpus.iter().map(|v| v.counters.runtime_ns).sum();
        assert!(ran <= end * config.cpus as u64, "seed {seed}");
    }
}

#[test]
fn every_random_pool_is_deterministic() {
    for seed in [3, 33, 333] {
        assert_eq!(pool(seed, 50 * MS).0, pool(seed, 50 * MS).0);
    }
}
