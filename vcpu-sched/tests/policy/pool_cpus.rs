//! CPUs that the pool gets and gives up.

use crate::pool::{MS, Pool, US, quiet};
use vcpu_sched::{
    Config, CpuId, CpuRemovalError, CpuSet, Reservation, SchedParams, StopReason, VcpuId,
};

impl Pool {
    /// A pool with places for `places` CPUs that has the first of them.
    fn with_one_of(places: usize) -> Self {
        let mut spare = CpuSet::first(places);
        spare.remove(CpuId(0));
        Self::with(Config {
            spare,
            ..Config::new(places)
        })
    }

    fn add_cpu(&mut self, cpu: u32) -> bool {
        self.policy.add_cpu(CpuId(cpu), self.now)
    }

    fn remove_cpu(&mut self, cpu: u32) -> Result<(), CpuRemovalError> {
        self.policy.remove_cpu(CpuId(cpu), self.now)
    }

    /// How much more the pool admits, as budget of a period of 1 s, ms.
    fn room(&mut self) -> u64 {
        let guest = self.guest();
        let fits = |budget: u64| {
            let reservation = Reservation::hard(budget * MS, 1_000 * MS).unwrap();
            let mut policy = self.policy.clone();
            policy
                .add_vcpu(guest, SchedParams::Reserved(reservation), None)
                .is_ok()
        };
        (1..=1_000).rev().find(|&budget| fits(budget)).unwrap_or(0)
    }
}

#[test]
fn a_pool_runs_nothing_on_a_cpu_that_it_does_not_have_and_promises_nothing_there() {
    let mut p = Pool::with_one_of(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.best_effort(g, 100));
    p.wake(a);
    p.wake(b);
    assert_eq!(p.pick(0), Some((a, a)));
    assert_eq!(p.pick(1), None);
    assert!(
        !p.policy.cpu_online(CpuId(1), p.now),
        "it is not the pool's"
    );
    assert_eq!(p.room(), 950);
    assert_eq!(p.policy.pool_cpus(), CpuSet::first(1));
}

#[test]
fn a_vcpu_that_may_run_everywhere_runs_on_a_new_cpu_at_once() {
    let mut p = Pool::with_one_of(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.best_effort(g, 100));
    p.wake(a);
    p.wake(b);
    assert_eq!(p.pick(0), Some((a, a)));
    p.kicks();
    assert!(p.add_cpu(1) && !p.add_cpu(1) && !p.add_cpu(2));
    assert!(p.kicks().contains(&1));
    assert_eq!(p.pick(1), Some((b, b)));
    p.hard(g, 90, 100);
    p.hard(g, 90, 100);
    assert!(p.room() < 200);
}

#[test]
fn a_vcpu_that_is_pinned_to_a_cpu_which_the_pool_gets_runs_there_then() {
    let mut p = Pool::with_one_of(3);
    let g = p.guest();
    let pinned = p.hard_on(g, 9, 10, Some(&[0, 2]));
    let other = p.hard_on(g, 1, 1_000, Some(&[0]));
    let nowhere = CpuSet::only(CpuId(2));
    let params = SchedParams::BestEffort { weight: 1 };
    assert!(p.policy.add_vcpu(g, params, Some(nowhere)).is_err());
    p.wake(other);
    p.wake(pinned);
    assert_eq!(p.pick(0), Some((pinned, pinned)));
    assert!(p.add_cpu(1));
    assert_eq!(p.pick(1), None, "both are pinned to others");
    assert!(p.add_cpu(2));
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(2), Some((pinned, pinned)));
    assert_eq!(p.pick(0), Some((other, other)));
}

#[test]
fn what_runs_on_a_cpu_that_is_given_up_goes_on_elsewhere() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.best_effort(g, 100));
    p.wake(a);
    p.wake(b);
    assert_eq!((p.pick(0), p.pick(1)), (Some((a, a)), Some((b, b))));
    p.kicks();
    p.remove_cpu(1).unwrap();
    assert_eq!(p.kicks(), [1]);
    p.run(1, 10 * US, StopReason::Preempted, quiet());
    assert_eq!(p.pick(1), None);
    p.stop(0, StopReason::Preempted, quiet());
    assert!(p.decide(0).unwrap().until.is_some(), "the two share it");
    assert_eq!(p.remove_cpu(1), Err(CpuRemovalError::NotThere(CpuId(1))));
    assert!(!p.policy.cpu_online(CpuId(1), p.now));
    assert!(p.add_cpu(1));
    assert!(p.pick(1).is_some());
}

#[test]
fn the_last_cpu_that_can_be_used_is_not_given_up() {
    let mut p = Pool::new(2);
    p.policy.cpu_offline(CpuId(1), 0);
    assert_eq!(p.remove_cpu(0), Err(CpuRemovalError::Last));
    p.remove_cpu(1).unwrap();
    assert_eq!(p.remove_cpu(0), Err(CpuRemovalError::Last));
}

#[test]
fn a_cpu_is_not_given_up_while_a_vcpu_may_run_nowhere_else() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let pinned = p.hard_on(g, 1, 10, Some(&[1]));
    assert_eq!(p.remove_cpu(1), Err(CpuRemovalError::Pinned(vec![pinned])));
    let here = CpuSet::only(CpuId(0));
    p.policy.set_allowed(pinned, Some(here), p.now).unwrap();
    p.remove_cpu(1).unwrap();
    assert_eq!(p.remove_cpu(0), Err(CpuRemovalError::Last));
}

#[test]
fn a_cpu_is_not_given_up_if_what_is_promised_would_not_fit_and_the_refusal_says_what() {
    let mut p = Pool::new(2);
    let first = p.guest();
    p.hard(first, 50, 100);
    let second = p.guest();
    let [a, b] = [(); 2].map(|()| p.hard(second, 25, 100));
    let refusal = p.remove_cpu(1).unwrap_err();
    let CpuRemovalError::NoBandwidth {
        vcpus,
        cpus,
        promised_permille,
        fits_permille,
        held_until,
    } = refusal
    else {
        panic!("{refusal}");
    };
    assert_eq!((vcpus, cpus), (vec![a, b], 1));
    assert_eq!((promised_permille, fits_permille), (1_001, 950));
    assert_eq!(held_until, None);
    assert_eq!(p.policy.pool_cpus(), CpuSet::first(2));
    p.policy.remove(b, p.now);
    p.remove_cpu(1).unwrap();
    assert_eq!(p.room(), 200);
}

#[test]
fn bandwidth_that_is_given_up_counts_until_it_is_free() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let [a, b] = [(); 2].map(|()| p.hard(g, 60, 100));
    for vcpu in [a, b] {
        p.wake(vcpu);
    }
    assert_eq!((p.pick(0), p.pick(1)), (Some((a, a)), Some((b, b))));
    p.run(1, 50 * MS, StopReason::Halted(None), quiet());
    p.pick(1);
    p.policy.remove(b, p.now);
    let Err(CpuRemovalError::NoBandwidth {
        vcpus, held_until, ..
    }) = p.remove_cpu(1)
    else {
        panic!("what was used in advance is held");
    };
    let none: [VcpuId; 0] = [];
    assert_eq!(vcpus, none);
    p.now = held_until.unwrap();
    p.remove_cpu(1).unwrap();
}

#[test]
fn pinnings_count_as_what_is_left_of_them() {
    let mut p = Pool::new(3);
    let g = p.guest();
    p.hard_on(g, 50, 100, Some(&[0, 1]));
    p.hard_on(g, 30, 100, Some(&[0, 2]));
    // Both can run on CPU 0 alone then.
    p.remove_cpu(1).unwrap();
    let refusal = p.remove_cpu(2);
    p.hard_on(g, 14, 100, Some(&[0]));
    refusal.unwrap();
    let more = Reservation::hard(2 * MS, 100 * MS).unwrap();
    assert!(
        p.policy
            .add_vcpu(g, SchedParams::Reserved(more), None)
            .is_err()
    );
    assert!(p.add_cpu(1));
    p.policy
        .add_vcpu(g, SchedParams::Reserved(more), None)
        .unwrap();
}
