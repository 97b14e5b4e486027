//! What a guest publishes changes nothing outside it.
//!
//! The bounds, none of which depends on what the liar does:
//! - On one CPU, if the reservations and one deferral (in the shortest period) fit, the others miss no
//!   deadline and run exactly what they would run without the liar.
//! - On several CPUs, a vCPU that is always runnable gets all its budgets except those of the last two periods
//!   (the tardiness of global EDF).
//! - The liar's guest runs no more than its budgets, one of them fresh at the end, plus one deferral for each
//!   of its vCPUs, plus what its soft and best-effort vCPUs find idle (none here).

use crate::{MS, US, hard};
use vcpu_sched::sim::{Behaviour, Costs, Liar, LockKind, Outcome, Script, Simulation, Step};
use vcpu_sched::{Config, Event, GuestId, Ns};

const END: Ns = 1_000 * MS;
const DEFERRAL: Ns = 50 * US;
/// Budget and period of the liar's vCPUs, ms.
const LIARS: [(Ns, Ns); 3] = [(2, 20), (5, 50), (1, 10)];
/// Budget and period of the honest guest's vCPUs, ms.
const HONEST: [(Ns, Ns); 3] = [(2, 10), (3, 15), (6, 40)];

/// An honest guest beside one whose vCPUs behave as `other` returns.
fn beside(
    cpus: usize,
    honest: impl Fn(Ns, Ns) -> Script,
    other: impl Fn(u64) -> Behaviour,
) -> (Outcome<()>, GuestId, GuestId) {
    let mut sim = Simulation::with_events(Config::new(cpus), Costs::default(), ());
    let (good, bad) = (sim.guest(), sim.guest());
    for set in 0..cpus as u64 {
        for (index, (q, p)) in LIARS.into_iter().enumerate() {
            let behaviour = other(set * 8 + index as u64);
            sim.vcpu(bad, hard(q * MS, p * MS), behaviour).unwrap();
        }
        for (q, p) in HONEST {
            let (q, p) = (q * MS, p * MS);
            sim.vcpu(good, hard(q, p), honest(q, p)).unwrap();
        }
    }
    (sim.run(END), good, bad)
}

fn periodic(q: Ns, p: Ns) -> Script {
    Script::forever([Step::Compute(q), Step::NextPeriod(p)])
}

fn liar(seed: u64) -> impl Fn(u64) -> Behaviour {
    move |index| Liar::new(seed * 1_000 + index).into()
}

#[test]
fn on_one_cpu_a_lying_guest_makes_no_other_guest_miss_a_deadline() {
    let quiet = |_| Script::forever([Step::Halt]).into();
    let (alone, good, _) = beside(1, periodic, quiet);
    for seed in 0..60 {
        let (outcome, ..) = beside(1, periodic, liar(seed));
        for (vcpu, alone) in outcome.guest(good).zip(alone.guest(good)) {
            assert_eq!(vcpu.counters.deadline_misses, 0, "seed {seed}");
            assert_eq!(vcpu.counters.runtime_ns, alone.counters.runtime_ns);
            assert_eq!(vcpu.passes, alone.passes, "seed {seed}");
            let moved = (vcpu.counters.donated_ns, vcpu.counters.received_ns);
            assert_eq!(moved, (0, 0), "no budget crosses the border");
        }
    }
}

#[test]
fn on_two_cpus_a_lying_guest_takes_no_bandwidth_of_another_guest() {
    for seed in 0..40 {
        let (outcome, good, _) = beside(2, |_, _| Script::hog(), liar(seed));
        let params = HONEST.into_iter().cycle();
        for (vcpu, (q, p)) in outcome.guest(good).zip(params) {
            let ran = vcpu.counters.runtime_ns;
            let promised = END / p * q;
            assert!(
                ran + 2 * q * MS >= promised,
                "seed {seed}: {ran} {promised}"
            );
            assert!(ran <= promised + q * MS, "seed {seed}: {ran} {promised}");
        }
    }
}

#[test]
fn lying_guest_never_exceeds_its_reservations() {
    for cpus in [1, 2] {
        for seed in 0..40 {
            let (outcome, _, bad) = beside(cpus, periodic, liar(seed));
            let budget = |(q, p): (Ns, Ns)| (END / (p * MS) + 1) * q * MS + DEFERRAL;
            let bound: Ns = LIARS.map(budget).iter().sum::<Ns>() * cpus as u64;
            let ran = outcome.guest_runtime_ns(bad);
            assert!(ran <= bound, "seed {seed}: {ran} of {bound}");
            let charged: Ns = outcome.guest(bad).map(|v| v.counters.charged_ns).sum();
            assert_eq!(charged, ran, "seed {seed}");
            let params = LIARS.into_iter().cycle();
            for (vcpu, params) in outcome.guest(bad).zip(params) {
                let bound = budget(params);
                assert!(vcpu.counters.charged_ns <= bound, "seed {seed}");
            }
        }
    }
}

#[test]
fn lying_guest_does_lie() {
    // Otherwise the tests above show nothing.
    let outcomes: Vec<_> = (0..8).map(|seed| beside(1, periodic, liar(seed))).collect();
    let sum = |count: fn(&vcpu_sched::Counters) -> u64| -> u64 {
        let vcpus = outcomes
            .iter()
            .flat_map(|(outcome, _, bad)| outcome.guest(*bad));
        vcpus.map(|v| count(&v.counters)).sum()
    };
    assert!(sum(|c| c.received_ns) > MS);
    assert!(sum(|c| c.deferrals_expired) > 0);
    assert!(sum(|c| c.cycles) > 0);
    assert!(sum(|c| c.stale_edges) > 0);
    assert!(sum(|c| c.throttles) > 10);
}

#[test]
fn lying_guest_hands_over_what_it_does_not_hold() {
    // Edges that moved to another holder, by the event that follows before the next stop. After a release by
    // doorbell there is none; after a wake-up by a holder, it is the wake-up of the new holder; otherwise it is
    // a kick.
    let (mut by_wake, mut by_report) = (0, 0);
    for seed in 0..10 {
        let mut sim = Simulation::new(Config::new(2), Costs::default());
        let bad = sim.guest();
        for (index, (q, p)) in (0..6).zip(LIARS.into_iter().cycle()) {
            let behaviour = liar(seed)(index);
            sim.vcpu(bad, hard(q * MS, p * MS), behaviour).unwrap();
        }
        let (mut stopped, mut moved, mut kicked) = (None, None, false);
        for (_, event) in sim.run(END).events {
            match event {
                Event::Stop { curr, .. } => {
                    by_report += u64::from(moved.take().is_some() && kicked);
                    stopped = Some(curr);
                }
                Event::EdgeOn { waiter, holder, .. } if stopped != Some(waiter) => {
                    (moved, kicked) = (Some(holder), false);
                }
                Event::Wake(woken) => by_wake += u64::from(moved.take() == Some(woken)),
                Event::Kick(_) => kicked = true,
                _ => {}
            }
        }
    }
    assert!(by_wake > 0 && by_report > 0, "{by_wake} {by_report}");
}

#[test]
fn guest_that_holds_a_lock_for_ever_harms_only_itself() {
    let mut sim = Simulation::with_events(Config::new(1), Costs::default(), ());
    let (good, bad) = (sim.guest(), sim.guest());
    let lock = sim.lock(bad, LockKind::Ticket);
    for _ in 0..4 {
        let script = Script::forever([Step::Lock(lock), Step::Compute(MS), Step::Halt]);
        sim.vcpu(bad, hard(MS, 10 * MS), script).unwrap();
    }
    let vcpu = sim
        .vcpu(good, hard(5 * MS, 10 * MS), periodic(5 * MS, 10 * MS))
        .unwrap();
    let outcome = sim.run(END);
    assert_eq!(outcome.vcpu(vcpu).counters.deadline_misses, 0);
    assert_eq!(outcome.vcpu(vcpu).counters.runtime_ns, END / 2);
}
