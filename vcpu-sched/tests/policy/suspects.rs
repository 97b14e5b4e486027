//! A vCPU that spins for a holder that is not known, by the host's guess.

use crate::pool::{MS, Pool, US, holding, waits};
use vcpu_sched::{CpuId, GuestId, Hints, StopReason, Suspects, VcpuId, WaitKind};

/// The host's guess that a vCPU holds a lock.
fn holds() -> Hints {
    Hints {
        is_guess: true,
        ..holding()
    }
}

/// The host's guess that a vCPU spins.
fn spins() -> Hints {
    Hints {
        waits: true,
        ..holds()
    }
}

/// The host's guess that a vCPU has released its locks.
fn free() -> Hints {
    Hints {
        depth: 0,
        releases: 1,
        ..holds()
    }
}

/// vCPUs that stopped a moment after each other with these hints, the last one the earliest deadline.
fn stopped(hints: &[Hints]) -> (Pool, Vec<VcpuId>) {
    let mut p = Pool::new(1);
    let g = p.guest();
    let mut vcpus = Vec::new();
    for (period, &hints) in (10..=20).rev().zip(hints) {
        let vcpu = p.hard(g, 1, period);
        p.wake(vcpu);
        assert_eq!(p.pick(0), Some((vcpu, vcpu)), "it is the earliest");
        p.run(0, US, StopReason::Preempted, hints);
        vcpus.push(vcpu);
    }
    (p, vcpus)
}

#[test]
fn the_vcpu_that_holds_something_is_carried_until_it_holds_nothing() {
    let (mut p, v) = stopped(&[free(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[1])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    assert_eq!(p.pick(0), Some((v[2], v[2])));
}

#[test]
fn a_count_that_never_returns_to_zero_keeps_no_waiter_from_running() {
    let (mut p, v) = stopped(&[holds(), spins()]);
    for _ in 0..3 {
        assert_eq!(p.pick(0), Some((v[1], v[0])));
        p.run(0, 20 * US, StopReason::Preempted, holds());
        assert_eq!(p.pick(0), Some((v[1], v[1])));
        p.run(0, 20 * US, StopReason::Preempted, spins());
    }
}

#[test]
fn of_two_suspects_the_one_that_was_stopped_first_comes_first() {
    let (mut p, v) = stopped(&[holds(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[0])));
    p.run(0, 20 * US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((v[2], v[1])), "the first was the wrong one");
}

#[test]
fn vcpus_that_all_spin_are_tried_in_turn_and_the_waiter_after_them() {
    let (mut p, v) = stopped(&[spins(), spins(), spins()]);
    for expected in [v[0], v[1], v[2], v[0], v[1], v[2]] {
        assert_eq!(p.pick(0), Some((v[2], expected)));
        p.run(0, 20 * US, StopReason::Preempted, spins());
    }
}

#[test]
fn no_vcpu_is_suspected_by_what_it_published_itself() {
    let (mut p, v) = stopped(&[holding(), spins()]);
    assert_eq!(p.pick(0), Some((v[1], v[1])));
}

#[test]
fn a_suspect_that_has_begun_to_publish_its_hints_is_suspected_no_longer() {
    let (mut p, v) = stopped(&[holds()]);
    let guest = GuestId(0);
    let (waiter, sleeper) = (p.hard(guest, 1, 9), p.hard(guest, 1, 5));
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.run(0, MS, StopReason::Preempted, spins());
    assert_eq!(
        p.pick(0),
        Some((v[0], v[0])),
        "the budget of its waiter is used up"
    );
    p.run(0, US, StopReason::Preempted, holding());
    p.wake(sleeper);
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    p.run(
        0,
        US,
        StopReason::Halted(None),
        waits(WaitKind::Block, waiter),
    );
    assert_eq!(p.pick(0), Some((sleeper, waiter)));
}

#[test]
fn a_suspect_that_has_gone_to_sleep_keeps_none_that_waits_for_its_waiter() {
    let (mut p, v) = stopped(&[holds()]);
    let guest = GuestId(0);
    let (waiter, second) = (p.hard(guest, 1, 9), p.hard(guest, 1, 8));
    p.wake(waiter);
    assert_eq!(p.pick(0), Some((waiter, waiter)));
    p.run(0, MS, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((v[0], v[0])));
    p.run(0, US, StopReason::Halted(None), holds());
    p.wake(second);
    assert_eq!(p.pick(0), Some((second, second)));
    p.run(0, US, StopReason::Rang, waits(WaitKind::Spin, waiter));
    assert_eq!(p.pick(0), Some((second, waiter)));
}

#[test]
fn no_vcpu_of_another_guest_is_suspected() {
    let (mut p, _) = stopped(&[holds()]);
    let other = p.guest();
    let waiter = p.hard(other, 1, 5);
    p.wake(waiter);
    p.pick(0);
    p.run(0, US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((waiter, waiter)));
}

#[test]
fn a_suspect_runs_on_the_budget_of_its_waiter_only() {
    let (mut p, v) = stopped(&[holds(), spins()]);
    let before = p.counters(v[0]).charged_ns;
    assert_eq!(p.pick(0), Some((v[1], v[0])));
    p.run(0, MS / 2, StopReason::Preempted, free());
    assert_eq!(p.counters(v[0]).charged_ns, before);
    assert_eq!(p.counters(v[1]).charged_ns, US + MS / 2);
}

#[test]
fn a_vcpu_that_holds_nothing_lets_the_suspects_of_its_guest_run_first() {
    let (mut p, v) = stopped(&[holds(), spins(), free()]);
    for expected in [v[0], v[1]] {
        let decision = p.decide(0).unwrap();
        assert_eq!((decision.donor, decision.curr), (v[2], expected));
        assert!(decision.until_release);
        p.run(0, 20 * US, StopReason::Preempted, free());
    }
    let decision = p.decide(0).unwrap();
    assert_eq!(
        (decision.donor, decision.curr),
        (v[2], v[2]),
        "none is left"
    );
    assert!(!decision.until_release);
}

#[test]
fn holders_run_first_only_so_often_in_a_guest_whose_vcpus_do_not_spin_for_each_other() {
    let (mut p, v) = stopped(&[holds(), free()]);
    let mut run_first = 0;
    for _ in 0..100 {
        if p.pick(0) == Some((v[1], v[0])) {
            run_first += 1;
            p.run(0, US, StopReason::Preempted, free());
            p.pick(0);
        }
        p.run(0, US, StopReason::Halted(None), free());
        assert_eq!(p.pick(0), Some((v[0], v[0])));
        p.run(0, US, StopReason::Preempted, holds());
        p.wake(v[1]);
        assert_eq!(p.pick(0), Some((v[1], v[1])), "it has just woken");
        p.run(0, US, StopReason::Preempted, free());
    }
    assert_eq!(run_first, 64);
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (v[1], v[1]));
    assert!(!decision.may_wait, "it is not looked at either");

    // It spins while the other holds something.
    p.run(0, US, StopReason::Preempted, spins());
    for (curr, hints) in [(v[0], holds()), (v[1], free())] {
        assert_eq!(p.pick(0), Some((v[1], curr)));
        p.run(0, US, StopReason::Preempted, hints);
    }
    assert!(p.decide(0).unwrap().may_wait);
}

#[test]
fn a_vcpu_that_has_just_woken_runs_before_the_suspects_of_its_guest() {
    let mut p = Pool::new(1);
    let g = p.guest();
    let (waker, sleeper) = (p.hard(g, 5, 20), p.hard(g, 1, 10));
    p.wake(sleeper);
    p.pick(0);
    p.run(0, US, StopReason::Halted(None), free());
    p.wake(waker);
    assert_eq!(p.pick(0), Some((waker, waker)));
    p.wake(sleeper);
    p.run(0, US, StopReason::Preempted, holds());
    assert_eq!(p.pick(0), Some((sleeper, sleeper)));
    // From its next turn on it is as any other.
    p.run(0, US, StopReason::Preempted, free());
    assert_eq!(p.pick(0), Some((sleeper, waker)));
}

#[test]
fn a_vcpu_that_holds_something_and_does_not_spin_lets_no_suspect_run_first() {
    let (mut p, v) = stopped(&[spins(), holds()]);
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (v[1], v[1]));
    assert!(!decision.until_release);
}

#[test]
fn suspects_that_spin_for_ever_run_before_a_vcpu_that_holds_nothing_only_so_often() {
    let (mut p, v) = stopped(&[spins(), free()]);
    let turns = |p: &mut Pool| {
        let carried = (0..100).take_while(|_| {
            let carries = p.pick(0) == Some((v[1], v[0]));
            p.run(
                0,
                US,
                StopReason::Preempted,
                if carries { spins() } else { free() },
            );
            carries
        });
        carried.count()
    };
    let turns: Vec<_> = (0..12).map(|_| turns(&mut p)).collect();
    assert_eq!(turns, [12, 12, 12, 12, 12, 12, 12, 0, 12, 0, 0, 12]);
}

#[test]
fn a_count_that_never_returns_to_zero_keeps_no_vcpu_from_running_that_holds_nothing() {
    let (mut p, v) = stopped(&[holds(), free()]);
    assert_eq!(p.pick(0), Some((v[1], v[0])));
    p.run(0, 20 * US, StopReason::Preempted, holds());
    for _ in 0..3 {
        assert_eq!(p.pick(0), Some((v[1], v[1])));
        p.run(0, 20 * US, StopReason::Preempted, free());
    }
}

#[test]
fn a_vcpu_that_spun_runs_until_it_holds_nothing_if_others_wait() {
    let (mut p, v) = stopped(&[free(), spins(), spins()]);
    for (suspect, hints) in [(v[1], spins()), (v[0], free())] {
        assert_eq!(p.pick(0), Some((v[2], suspect)));
        p.run(0, 20 * US, StopReason::Preempted, hints);
    }
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (v[2], v[2]));
    assert!(decision.until_release, "vCPU 1 may wait for it");

    let (mut p, v) = stopped(&[free(), spins()]);
    assert_eq!(p.pick(0), Some((v[1], v[0])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (v[1], v[1]));
    assert!(!decision.until_release, "none waits for it");
}

#[test]
fn a_vcpu_that_published_its_wait_runs_until_its_time_is_up() {
    let (mut p, v) = stopped(&[holding(), holding()]);
    p.pick(0);
    p.run(0, US, StopReason::Rang, waits(WaitKind::Spin, v[0]));
    let decision = p.decide(0).unwrap();
    assert_eq!((decision.donor, decision.curr), (v[1], v[0]));
    assert!(!decision.until_release, "it rings");
}

#[test]
fn no_guest_publishes_a_suspicion() {
    let (mut p, v) = stopped(&[holding(), holding()]);
    p.pick(0);
    p.run(0, US, StopReason::Rang, waits(WaitKind::Suspect, v[0]));
    assert_eq!(p.policy.view(v[1]).unwrap().waits_for, None);
}

#[test]
fn a_suspicion_names_no_lock_that_could_be_handed_over() {
    let (mut p, v) = stopped(&[holds(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[0])));
    p.policy.hand_over(CpuId(0), 0, v[1], p.now);
    assert_eq!(p.kicks(), []);
    let view = p.policy.view(v[2]).unwrap();
    assert_eq!((view.waits_for, view.is_suspicion), (Some((v[0], 0)), true));
    p.release(0, Some(v[1]));
    assert_eq!(p.policy.view(v[2]).unwrap().waits_for, Some((v[0], 0)));
}

#[test]
fn a_vcpu_that_holds_nothing_is_suspected_once_if_no_other_can_be() {
    // As the sender of an IPI spins until the others have taken it.
    let (mut p, v) = stopped(&[free(), free(), spins()]);
    for suspect in [v[0], v[1]] {
        let decision = p.decide(0).unwrap();
        assert_eq!((decision.donor, decision.curr), (v[2], suspect));
        assert!(decision.until_release);
        p.run(0, 20 * US, StopReason::Preempted, free());
    }
    assert_eq!(p.pick(0), Some((v[2], v[2])));
}

#[test]
fn vcpus_that_hold_nothing_are_suspected_rarely_in_a_guest_where_they_only_join_the_queue() {
    let (mut p, v) = stopped(&[free(), spins()]);
    let mut suspected = 0;
    for _ in 0..200 {
        let picked = p.pick(0);
        p.run(0, US, StopReason::Preempted, spins());
        if picked == Some((v[1], v[0])) {
            suspected += 1;
            // It has queued, and leaves the queue again.
            for (curr, hints) in [(v[1], spins()), (v[0], free())] {
                assert_eq!(p.pick(0), Some((v[1], curr)));
                p.run(0, US, StopReason::Preempted, hints);
            }
        }
    }
    assert!((7..20).contains(&suspected), "{suspected}");
}

#[test]
fn vcpus_that_hold_nothing_are_suspected_each_time_if_that_ends_waits() {
    let (mut p, v) = stopped(&[free(), spins()]);
    for _ in 0..100 {
        assert_eq!(p.pick(0), Some((v[1], v[0])));
        p.run(0, US, StopReason::Preempted, free());
        for hints in [free(), spins()] {
            assert_eq!(p.pick(0), Some((v[1], v[1])));
            p.run(0, US, StopReason::Preempted, hints);
        }
    }
}

#[test]
fn a_waiter_whose_suspect_has_released_something_runs_before_others_that_hold_nothing() {
    let (mut p, v) = stopped(&[free(), holds(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[1])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    assert_eq!(p.pick(0), Some((v[2], v[2])));
    p.run(0, 20 * US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((v[2], v[0])), "it spins on");
}

#[test]
fn a_vcpu_may_come_to_wait_if_a_holder_or_a_waiter_is_off_the_cpus() {
    for (hints, may_wait) in [
        (free(), false),
        (holds(), true),
        (spins(), true),
        (holding(), false),
    ] {
        let (mut p, _) = stopped(&[hints, holds()]);
        let decision = p.decide(0).unwrap();
        assert_eq!(decision.may_wait, may_wait, "{hints:?}");
    }
}

#[test]
fn what_suspects_have_led_to_is_counted() {
    let (mut p, v) = stopped(&[holds(), spins(), spins()]);
    assert_eq!(p.pick(0), Some((v[2], v[0])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    assert_eq!(p.pick(0), Some((v[2], v[1])));
    p.run(0, 20 * US, StopReason::Preempted, spins());
    assert_eq!(p.pick(0), Some((v[2], v[2])));
    p.run(0, 20 * US, StopReason::Preempted, free());
    let counted = |v| (p.counters(v).suspected, p.counters(v).suspect_releases);
    assert_eq!([v[0], v[1], v[2]].map(counted), [(1, 1), (1, 0), (0, 0)]);
}

#[test]
fn a_vcpu_waits_for_one_that_runs_if_no_suspect_is_off_the_cpus() {
    let mut p = Pool::new(2);
    let g = p.guest();
    let v: Vec<_> = (10..13).map(|period| p.hard(g, 1, period)).collect();
    p.wake(v[0]);
    p.pick(0);
    assert_eq!(p.policy.suspects(CpuId(0)), Suspects::None, "it is alone");
    p.wake(v[1]);
    p.pick(1);
    assert_eq!(p.policy.suspects(CpuId(0)), Suspects::None, "vCPU 1 runs");
    p.run(1, US, StopReason::Preempted, holds());
    assert_eq!(p.policy.suspects(CpuId(0)), Suspects::OffCpu);
    assert_eq!(
        p.policy.suspects(CpuId(1)),
        Suspects::None,
        "it runs nothing"
    );
    let other = p.guest();
    let other = p.hard(other, 1, 5);
    p.wake(other);
    p.pick(1);
    assert_eq!(
        p.policy.suspects(CpuId(0)),
        Suspects::OffCpu,
        "another guest's"
    );
    p.run(1, US, StopReason::Halted(None), Hints::default());
    p.pick(1);
    assert_eq!(
        p.policy.suspects(CpuId(0)),
        Suspects::None,
        "vCPU 1 runs again"
    );
    p.run(1, US, StopReason::Preempted, holds());
    p.wake(v[2]);
    while p.pick(1) != Some((v[2], v[2])) {
        p.run(1, US, StopReason::Preempted, holds());
    }
    assert_eq!(p.policy.suspects(CpuId(0)), Suspects::OffCpuOrRunning);
}
