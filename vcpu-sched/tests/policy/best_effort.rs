//! What reservations leave, divided by weight.

use crate::pool::{MS, Pool, US, quiet};
use vcpu_sched::{Config, CpuId, CpuSet, Ns, SchedParams, StopReason, VcpuId};

/// Runs CPU 0 as the policy decides until `end`. No vCPU ever halts.
fn run_until(p: &mut Pool, end: Ns) {
    while p.now < end {
        let until = p.decide(0).expect("a vCPU is runnable").until;
        p.now = until.unwrap_or(end).clamp(p.now + 1, end);
        p.stop(0, StopReason::Preempted, quiet());
    }
}

/// Thousandths of `total` that each vCPU ran.
fn shares(p: &Pool, vcpus: &[VcpuId], total: Ns) -> Vec<u64> {
    let share = |&v| (p.counters(v).runtime_ns * 1000 + total / 2) / total;
    vcpus.iter().map(share).collect()
}

#[test]
fn cpu_time_is_divided_by_weight() {
    let mut p = Pool::new(1);
    let vcpus: Vec<_> = [100, 200, 700]
        .map(|weight| {
            let g = p.guest();
            p.best_effort(g, weight)
        })
        .into();
    vcpus.iter().for_each(|&v| p.wake(v));
    run_until(&mut p, 4_000 * MS);
    assert_eq!(shares(&p, &vcpus, 4_000 * MS), [100, 200, 700]);
}

#[test]
fn guest_with_more_vcpus_gets_no_larger_share() {
    let mut p = Pool::new(1);
    let (small, large) = (p.guest(), p.guest());
    let mut vcpus = vec![p.best_effort(small, 100)];
    vcpus.extend((0..4).map(|_| p.best_effort(large, 100)));
    vcpus.iter().for_each(|&v| p.wake(v));
    run_until(&mut p, 3_200 * MS);
    assert_eq!(shares(&p, &vcpus, 3_200 * MS), [500, 125, 125, 125, 125]);
}

#[test]
fn weight_beyond_one_cpu_is_not_saved_up() {
    // Of two CPUs the heavy vCPU can use at most one. The two light ones share the other.
    let mut p = Pool::new(2);
    let vcpus: Vec<_> = [10_000, 1, 1]
        .map(|weight| {
            let g = p.guest();
            p.best_effort(g, weight)
        })
        .into();
    vcpus.iter().for_each(|&v| p.wake(v));
    for cpu in 0..2 {
        p.pick(cpu);
    }
    for _ in 0..1_000 {
        p.pass(4 * MS);
        for cpu in 0..2 {
            p.stop(cpu, StopReason::Preempted, quiet());
            p.pick(cpu);
        }
    }
    for cpu in 0..2 {
        p.stop(cpu, StopReason::Preempted, quiet());
    }
    let got = shares(&p, &vcpus, 4_000 * MS);
    assert!(got[0] >= 990, "{got:?}");
    assert!((490..=510).contains(&got[1]), "{got:?}");
}

#[test]
fn alone_on_a_cpu_it_takes_no_ticks() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let v = p.best_effort(g, 100);
    p.wake(v);
    assert_eq!(p.decide(0).unwrap().until, None);
}

#[test]
fn woken_vcpu_on_a_busy_pool_gets_its_slice() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let (hog, woken) = (p.best_effort(g, 100), p.best_effort(h, 100));
    p.wake(hog);
    assert_eq!(p.decide(0).unwrap().until, None);
    p.kicks();
    p.pass(1_000 * MS);
    p.wake(woken);
    assert_eq!(p.kicks(), [0], "the hog ran alone, without a slice");
    p.stop(0, StopReason::Preempted, quiet());
    let next = p.decide(0).unwrap();
    assert!(next.until.is_some_and(|until| until <= p.now + 4 * MS));
    // The vCPU that slept may be half a slice before the hog, so it may have two slices in a row.
    let mut ran = vec![next.curr];
    for _ in 0..2 {
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
        ran.push(p.decide(0).unwrap().curr);
    }
    assert!(ran.contains(&woken) && ran.contains(&hog), "{ran:?}");
}

#[test]
fn woken_vcpu_does_not_interrupt_a_slice() {
    let mut p = Pool::new(1);
    let vcpus: Vec<_> = (0..3)
        .map(|_| {
            let g = p.guest();
            p.best_effort(g, 100)
        })
        .collect();
    p.wake(vcpus[0]);
    p.wake(vcpus[1]);
    p.pick(0);
    p.kicks();
    p.wake(vcpus[2]);
    assert_eq!(p.kicks(), []);
}

#[test]
fn reserved_comes_before_best_effort_and_preempts_it() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let (fair, reserved) = (p.best_effort(g, 10_000), p.hard(h, 1, 3_600_000));
    p.wake(fair);
    p.pick(0);
    p.kicks();
    p.wake(reserved);
    assert_eq!(p.kicks(), [0]);
    p.run(0, US, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((reserved, reserved)));
}

#[test]
fn best_effort_gets_what_reservations_leave() {
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let (reserved, fair) = (p.hard(g, 3, 10), p.best_effort(h, 1));
    p.wake(reserved);
    p.wake(fair);
    run_until(&mut p, 1_000 * MS);
    assert_eq!(shares(&p, &[reserved, fair], 1_000 * MS), [300, 700]);
}

#[test]
fn preempted_slice_is_resumed_not_restarted() {
    let mut p = Pool::with(Config {
        slice_ns: 10 * MS,
        ..Config::new(1)
    });
    let (g, h) = (p.guest(), p.guest());
    let (a, b) = (p.best_effort(g, 100), p.best_effort(h, 100));
    p.wake(a);
    p.wake(b);
    assert_eq!(p.pick(0), Some((a, a)));
    p.run(0, 6 * MS, StopReason::Preempted, quiet());
    let again = p.decide(0).unwrap();
    assert_eq!((again.curr, again.until), (a, Some(p.now + 4 * MS)));
}

#[test]
fn late_joiner_with_a_pinning_of_its_own_does_not_keep_the_cpu() {
    // Its queue has never been served, so the virtual time there would be that of the start.
    let mut p = Pool::new(1);
    let (g, h) = (p.guest(), p.guest());
    let old = p.best_effort(g, 100);
    let pinned = CpuSet::only(CpuId(0));
    p.wake(old);
    run_until(&mut p, 10_000 * MS);
    let new = p
        .policy
        .add_vcpu(h, SchedParams::BestEffort { weight: 100 }, Some(pinned));
    let new = new.unwrap();
    p.wake(new);
    run_until(&mut p, 10_080 * MS);
    assert!(p.counters(old).runtime_ns >= 10_036 * MS);
    assert!(p.counters(new).runtime_ns >= 36 * MS);
}

/// A vCPU that sleeps, one that has just begun a slice, and one that waits for its turn.
fn one_sleeper_among_three(p: &mut Pool) -> (VcpuId, VcpuId) {
    let [sleeper, first, second] = [100; 3].map(|weight| {
        let g = p.guest();
        p.best_effort(g, weight)
    });
    p.wake(sleeper);
    p.pick(0);
    p.run(0, US, StopReason::Halted(None), quiet());
    p.wake(first);
    p.wake(second);
    for running in [first, second] {
        assert_eq!(p.pick(0), Some((running, running)));
        p.run(0, 4 * MS, StopReason::Preempted, quiet());
    }
    assert_eq!(p.pick(0), Some((first, first)));
    (sleeper, first)
}

#[test]
fn a_vcpu_that_wakes_does_not_wait_for_the_end_of_a_slice_that_may_be_ended() {
    let mut p = Pool::new(1);
    let (sleeper, first) = one_sleeper_among_three(&mut p);
    p.pass(2 * MS);
    p.kicks();
    p.wake(sleeper);
    assert_eq!(p.kicks(), [0]);
    p.stop(0, StopReason::Preempted, quiet());
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    p.run(0, US, StopReason::Halted(None), quiet());
    // The slice has ended: the other vCPU comes first now.
    assert_ne!(p.pick(0), Some((first, first)));
    p.run(0, 4 * MS, StopReason::Preempted, quiet());
    let again = p.decide(0).unwrap();
    assert_eq!(
        (again.curr, again.until),
        (first, Some(p.now + 4 * MS)),
        "a slice of its own"
    );
}

#[test]
fn a_vcpu_that_wakes_often_does_not_break_slices_into_pieces() {
    let mut p = Pool::new(1);
    let (sleeper, _) = one_sleeper_among_three(&mut p);
    p.pass(US);
    p.kicks();
    p.wake(sleeper);
    assert_eq!(p.kicks(), [0; 0], "a slice of 4 ms has just begun");
}

/// How long the honest one of two vCPUs of the same weight runs in 4 s, in thousandths of that, if the guest of the other
/// leaves after each 3 ms of its slice and the next one joins at once, which owes what the one before was ahead.
fn share_beside_a_guest_that_leaves(pays: bool) -> u64 {
    let mut p = Pool::new(1);
    let honest_guest = p.guest();
    let honest = p.best_effort(honest_guest, 100);
    p.wake(honest);
    let guest = p.guest();
    let mut leaver = (guest, p.best_effort(guest, 100));
    p.wake(leaver.1);
    let (end, mut had) = (4_000 * MS, 0);
    while p.now < end {
        let decision = p.decide(0).expect("a vCPU is runnable");
        let slice = decision.until.unwrap_or(end).max(p.now + 1);
        if decision.curr == honest {
            had += slice - p.now;
            p.now = slice;
            p.stop(0, StopReason::Preempted, quiet());
            continue;
        }
        p.now = slice.min(p.now + 3 * MS);
        p.policy.remove_guest(leaver.0, p.now);
        p.stop(0, StopReason::Ended, quiet());
        let lead = p.policy.lead(leaver.1);
        assert!(p.policy.reclaim_guest(leaver.0, p.now));
        let guest = p.guest();
        leaver = (guest, p.best_effort(guest, 100));
        if pays {
            p.policy.owe(leaver.1, lead);
        }
        p.wake(leaver.1);
    }
    had * 1_000 / end
}

#[test]
fn a_guest_that_leaves_and_joins_again_gains_no_time_by_that() {
    let without = share_beside_a_guest_that_leaves(false);
    assert!(without < 450, "it gains if it does not pay: {without}");
    let with = share_beside_a_guest_that_leaves(true);
    assert!((490..=520).contains(&with), "{with}");
}

#[test]
fn a_vcpu_with_a_reservation_owes_and_is_ahead_of_nothing() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let reserved = p.hard(g, 5, 10);
    p.policy.owe(reserved, MS);
    p.wake(reserved);
    assert_eq!(p.pick(0), Some((reserved, reserved)));
    p.run(0, 2 * MS, StopReason::Preempted, quiet());
    assert_eq!(p.policy.lead(reserved), 0);
}
