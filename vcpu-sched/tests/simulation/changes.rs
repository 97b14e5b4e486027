//! What vCPUs get whose reservations change while they run, and whose guests are paused.

use crate::{MS, US, hard};
use vcpu_sched::sim::{Costs, Outcome, Script, Simulation, SplitMix64};
use vcpu_sched::{Config, Event, Ns, PolicyKind, Reservation, SchedParams, VcpuId};

const END: Ns = 2_000 * MS;

fn reservation(random: &mut SplitMix64) -> Reservation {
    let period = random.within(1_000, 30_000) * US;
    let budget = period / 1_000 * random.within(20, 600);
    Reservation::hard(budget, period).unwrap()
}

type Trace = Vec<(Ns, Event)>;

/// Hogs on one CPU whose hard reservations change at random.
fn hogs(seed: u64) -> (Outcome<Trace>, Vec<(VcpuId, Reservation)>) {
    let mut random = SplitMix64::new(seed);
    let mut sim = Simulation::new(Config::new(1), Costs::default());
    let mut hogs = Vec::new();
    for _ in 0..random.within(2, 6) {
        let guest = sim.guest();
        let first = reservation(&mut random);
        let params = SchedParams::Reserved(first);
        let Ok(vcpu) = sim.vcpu(guest, params, Script::hog()) else {
            continue;
        };
        hogs.push((vcpu, first));
        for _ in 0..random.within(1, 12) {
            let (to, at) = (reservation(&mut random), random.below(END));
            sim.set_reservation_at(vcpu, to, at);
        }
    }
    (sim.run(END), hogs)
}

/// What a hog runs of hard reservations, the first at time 0, the others from the times of the events on: for each
/// of them its share of the time, up to one budget more or less.
fn promised(
    events: &[(Ns, Event)],
    vcpu: VcpuId,
    first: Reservation,
) -> (Ns, Ns, Vec<(Ns, Reservation)>) {
    let changes = events.iter().filter_map(|&(at, event)| match event {
        Event::ReservationChanged(changed, to) if changed == vcpu => Some((at, to)),
        _ => None,
    });
    let all: Vec<_> = [(0, first)].into_iter().chain(changes).collect();
    let ends = all.iter().skip(1).map(|&(at, _)| at).chain([END]);
    let (mut least, mut most) = (0, 0);
    for (&(from, r), to) in all.iter().zip(ends) {
        let share = u128::from(to - from) * u128::from(r.budget()) / u128::from(r.period());
        least += (share as Ns).saturating_sub(r.budget());
        most += share as Ns + r.budget();
    }
    (least, most, all)
}

#[test]
fn each_vcpu_gets_what_was_in_force_and_misses_no_deadline_while_reservations_change() {
    let mut changes = 0;
    for seed in 0..200 {
        let (outcome, hogs) = hogs(seed);
        for (vcpu, first) in hogs {
            let (least, most, all) = promised(&outcome.events, vcpu, first);
            let counters = &outcome.vcpu(vcpu).counters;
            let ran = counters.runtime_ns;
            assert!(
                (least..=most).contains(&ran),
                "seed {seed}, {vcpu}: {ran} of {least} to {most}: {all:?}"
            );
            assert_eq!(counters.deadline_misses, 0, "seed {seed}, {vcpu}: {all:?}");
            changes += all.len() - 1;
        }
    }
    assert!(changes > 500, "{changes} changes were admitted");
}

#[test]
fn a_paused_guest_gets_nothing_and_no_more_than_its_share_however_often_it_is_paused() {
    let mut sim = Simulation::with_events(Config::new(1), Costs::default(), ());
    let guest = sim.guest();
    let vcpu = sim
        .vcpu(guest, hard(5 * MS, 10 * MS), Script::hog())
        .unwrap();
    let other = sim.guest();
    let beside = sim
        .vcpu(other, hard(4 * MS, 10 * MS), Script::hog())
        .unwrap();
    let mut random = SplitMix64::new(1);
    let (mut now, mut paused) = (0, 0);
    while now < END - 10 * MS {
        let from = now + random.within(1, 7_000) * US;
        now = from + random.within(1, 3_000) * US;
        sim.pause(guest, from, now);
        paused += now - from;
    }
    let outcome = sim.run(END);
    let ran = outcome.vcpu(vcpu).counters.runtime_ns;
    assert!(paused > END / 5 && ran <= END - paused, "{ran}");
    assert!(ran <= END / 2 + 5 * MS, "{ran}");
    assert!(ran >= END / 5, "{ran}");
    assert_eq!(outcome.vcpu(beside).counters.deadline_misses, 0);
    let beside = outcome.vcpu(beside).counters.runtime_ns;
    assert!((797 * MS..=803 * MS).contains(&beside), "{beside}");
}

#[test]
fn what_a_paused_guest_leaves_goes_to_best_effort() {
    for kind in [PolicyKind::Deadline, PolicyKind::RoundRobin] {
        pause_one_of_two(kind);
    }
}

fn pause_one_of_two(kind: PolicyKind) {
    let mut sim = Simulation::of_policy(kind.pool(Config::new(1), ()), Costs::default());
    let [paused, goes_on] = [(); 2].map(|()| {
        let guest = sim.guest();
        let params = SchedParams::BestEffort { weight: 100 };
        (guest, sim.vcpu(guest, params, Script::hog()).unwrap())
    });
    sim.pause(paused.0, 500 * MS, 1_500 * MS);
    let outcome = sim.run(END);
    let ran = |vcpu| outcome.vcpu(vcpu).counters.runtime_ns / MS;
    assert!(ran(paused.1).abs_diff(500) <= 5, "{}", ran(paused.1));
    assert!(ran(goes_on.1).abs_diff(1_500) <= 5, "{}", ran(goes_on.1));
    assert!(outcome.vcpu(paused.1).counters.waited_ns <= 505 * MS);
}
