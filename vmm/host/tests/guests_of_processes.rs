//! A pool runs guests of other processes: who gets what, and what a process can do to others.

mod processes;

use std::os::unix::process::ExitStatusExt;

use baton_host::executor::GuestState;
use processes::guest::{self, Behaviour, DEVICE_NS};
use processes::pool::{Guest, ServicePool};
use processes::until;

/// Not a test of its own: a guest's process.
#[test]
fn guest_process() {
    guest::become_guest();
}

/// Has the guest `name` leave, and its process end by itself. Returns the counters of its vCPUs, and what its threads
/// report.
fn leave(
    pool: &ServicePool,
    name: &str,
    mut guest: Guest,
) -> Vec<(vcpu_sched::Counters, u64, u64)> {
    let account = pool.handle.leave(name).expect("it is there");
    let ended = guest.ended(account.vcpus.len());
    let (status, gone) = guest.wait();
    assert!(status.success() && gone.is_err(), "{status} {gone:?}");
    let both = account.vcpus.into_iter().zip(ended);
    both.map(|(vcpu, (ran, seen))| (vcpu.counters, ran, seen))
        .collect()
}

#[test]
fn what_the_threads_of_two_guests_run_is_charged_and_is_what_the_executors_account_for() {
    let pool = ServicePool::start(1);
    let mut first = pool.guest("first", Behaviour::Busy, 2, None);
    let mut second = pool.guest("second", Behaviour::Busy, 1, Some("2ms/20ms,hard"));
    first.progress(8);
    second.progress(8);
    let mut vcpus = leave(&pool, "first", first);
    vcpus.extend(leave(&pool, "second", second));
    let mut in_runs = 0;
    for (counters, ran, _) in vcpus {
        assert!(ran > 0 && counters.charged_ns >= ran, "{ran} {counters:?}");
        in_runs += counters.charged_ns - counters.elsewhere_ns;
    }
    let report = pool.runner.stop();
    let busy: u64 = report
        .executors
        .iter()
        .map(|executor| executor.busy_ns)
        .sum();
    assert_eq!(in_runs, busy);
}

#[test]
fn vcpus_that_halt_sleep_in_their_process_and_come_back_when_they_wake() {
    let pool = ServicePool::start(1);
    let mut guest = pool.guest("halts", Behaviour::Halts, 3, None);
    let mut busy = pool.guest("busy", Behaviour::Busy, 1, None);
    guest.progress(100);
    busy.progress(4);
    pool.handle.pause("halts").expect("it runs");
    busy.progress(4);
    pool.handle.resume("halts").expect("it is paused");
    guest.progress(1_000);
    for (counters, ..) in leave(&pool, "halts", guest) {
        assert!(counters.sleep_ns > 0, "{counters:?}");
    }
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

#[test]
fn a_vcpu_that_holds_a_lock_runs_on_for_a_moment_and_knows_it() {
    let pool = ServicePool::start(1);
    let mut holds = pool.guest("holds", Behaviour::Holds, 1, None);
    let busy = pool.guest("busy", Behaviour::Busy, 1, None);
    holds.progress(16);
    let vcpus = leave(&pool, "holds", holds);
    let (counters, _, seen) = &vcpus[0];
    assert!(*seen > 0 && counters.deferrals > 0, "{counters:?}");
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

#[test]
fn a_vcpu_for_which_others_of_its_guest_wait_runs_on_their_contexts_and_knows_it() {
    let pool = ServicePool::start(1);
    let mut waits = pool.guest("waits", Behaviour::Waits, 3, None);
    let busy = pool.guest("busy", Behaviour::Busy, 1, None);
    waits.progress(100);
    let vcpus = leave(&pool, "waits", waits);
    let (holder, _, seen) = &vcpus[2];
    assert!(*seen > 0 && holder.proxied > 0, "{holder:?}");
    assert!(holder.received_ns > 0);
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

#[test]
fn what_a_process_uses_beside_its_vcpus_is_charged_to_its_guest() {
    let pool = ServicePool::start(1);
    let mut guest = pool.guest("devices", Behaviour::Devices, 1, None);
    let mut busy = pool.guest("busy", Behaviour::Busy, 1, None);
    guest.line("device").expect("it runs");
    // The clocks are read now and then.
    guest.progress(16);
    busy.progress(4);
    let vcpus = leave(&pool, "devices", guest);
    let elsewhere = vcpus[0].0.elsewhere_ns;
    assert!(elsewhere >= DEVICE_NS, "{elsewhere}");
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

#[test]
fn a_vcpu_whose_thread_sleeps_while_it_is_to_run_is_charged_for_that() {
    let pool = ServicePool::start(1);
    let mut sleeps = pool.guest("sleeps", Behaviour::SleepsCommanded, 1, None);
    let mut busy = pool.guest("busy", Behaviour::Busy, 1, None);
    sleeps.progress(64);
    busy.progress(4);
    let vcpus = leave(&pool, "sleeps", sleeps);
    let (counters, ran, slept) = &vcpus[0];
    // A part is forgiven, and the host may delay the executor meanwhile.
    let charged = counters.charged_ns;
    assert!(charged >= ran + slept / 2, "{slept} {ran} {counters:?}");
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

#[test]
fn a_vcpu_that_rings_without_end_gives_its_cpu_to_others_when_its_turn_is_over() {
    let pool = ServicePool::start(1);
    let mut rings = pool.guest("rings", Behaviour::RingsOn, 1, None);
    let mut busy = pool.guest("busy", Behaviour::Busy, 1, None);
    busy.progress(8);
    rings.progress(1_000);
    busy.progress(8);
    leave(&pool, "rings", rings);
    leave(&pool, "busy", busy);
    pool.runner.stop();
}

/// A guest's process does something that is not right, and another guest of its pool runs on.
fn fails(behaviour: Behaviour, expected: &str) {
    fails_in(ServicePool::start(1), behaviour, expected);
}

fn fails_in(pool: ServicePool, behaviour: Behaviour, expected: &str) {
    let mut good = pool.guest("good", Behaviour::Busy, 1, Some("1ms/50ms,hard"));
    good.progress(4);
    let bad = pool.guest("bad", behaviour, 2, None);
    until("the process is reported", || {
        pool.failures.of(bad.number).is_some()
    });
    let error = pool.failures.of(bad.number).expect("reported");
    assert!(error.contains(expected), "{error}");
    let (status, gone) = bad.wait();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    let account = gone.expect("it was still listed");
    let end = account.record.ended().expect("it has ended");
    assert!(
        !end.is_success() && end.to_string().contains(expected),
        "{end}"
    );
    assert_eq!(pool.names(), ["good"]);
    good.progress(8);
    assert_eq!(pool.failures.of(good.number), None);
    leave(&pool, "good", good);
    pool.runner.stop();
}

#[test]
fn a_process_whose_answer_makes_no_sense_is_killed_and_others_run_on() {
    fails(Behaviour::Lies, "does not answer the command");
}

#[test]
fn a_process_whose_vcpu_does_not_come_back_is_killed_and_others_run_on() {
    fails(Behaviour::StaysAway, "late");
}

#[test]
fn a_process_whose_vcpu_computes_without_a_command_is_killed_and_others_run_on() {
    let pool = ServicePool::start(1);
    let mut bad = pool.guest("bad", Behaviour::RunsUncommanded, 1, None);
    bad.line("commanded").expect("it runs");
    pool.handle.pause("bad").expect("it runs");
    bad.line("computed").expect("it runs");
    let mut good = pool.guest("good", Behaviour::Busy, 1, Some("1ms/50ms,hard"));
    good.progress(2);
    pool.handle.resume("bad").expect("it is paused");
    until("the process is reported", || {
        pool.failures.of(bad.number).is_some()
    });
    let error = pool.failures.of(bad.number).expect("reported");
    assert!(error.contains("had not granted"), "{error}");
    assert_eq!(bad.wait().0.signal(), Some(libc::SIGKILL));
    good.progress(8);
    leave(&pool, "good", good);
    pool.runner.stop();
}

#[test]
fn a_process_whose_vcpu_computes_when_it_is_to_sleep_is_killed_and_others_run_on() {
    fails(Behaviour::ComputesAsleep, "had not granted");
}

#[test]
fn a_process_whose_vcpu_is_never_attended_to_keeps_no_executor_waiting() {
    let pool = ServicePool::start(1);
    let mut good = pool.guest("good", Behaviour::Busy, 1, Some("1ms/50ms,hard"));
    good.progress(4);
    let mut bad = pool.guest("bad", Behaviour::NeverAttends, 1, None);
    bad.line("away").expect("it runs");
    pool.handle.pause("bad").expect("it is there");
    pool.handle.resume("bad").expect("it is paused");
    good.progress(64);
    // No executor has waited for it, so it is not overdue.
    assert_eq!(pool.failures.of(bad.number), None);
    assert_eq!(pool.names(), ["good", "bad"]);
    let (_, gone) = bad.kill();
    assert_eq!(gone.expect("it was there").vcpus.len(), 1);
    leave(&pool, "good", good);
    pool.runner.stop();
}

/// Reports that a test of priorities tests nothing.
fn no_priority() {
    eprintln!(
        "this user may give no thread a priority, or the host has one CPU, so nothing is tested"
    );
}

#[test]
fn a_vcpus_thread_has_the_priority_with_its_command_only() {
    let Some(pool) = ServicePool::start_with_priority() else {
        return no_priority();
    };
    let mut guest = pool.guest("guest", Behaviour::HasPriority, 2, None);
    guest.progress(1_000);
    for (_, _, seen) in leave(&pool, "guest", guest) {
        assert!(seen > 0);
    }
    pool.runner.stop();
}

#[test]
fn a_vcpus_thread_that_runs_elsewhere_than_it_is_told_loses_the_priority_there() {
    let Some(pool) = ServicePool::start_with_priority() else {
        return no_priority();
    };
    let mut good = pool.guest("good", Behaviour::Busy, 1, Some("1ms/50ms,hard"));
    good.progress(4);
    let mut bad = pool.guest("bad", Behaviour::Wanders, 1, None);
    bad.line("lost").expect("it loses the priority");
    good.progress(8);
    bad.kill().1.expect("it was there");
    leave(&pool, "good", good);
    pool.runner.stop();
}

#[test]
fn a_process_with_a_priority_whose_vcpu_does_not_come_back_is_killed_and_others_run_on() {
    let Some(pool) = ServicePool::start_with_priority() else {
        return no_priority();
    };
    fails_in(pool, Behaviour::StaysAway, "late");
}

#[test]
fn a_process_that_is_killed_takes_its_claims_with_it_and_leaves_its_numbers() {
    let pool = ServicePool::start(1);
    // Four of them do not fit at once, so each leaves room for a later one, and its name is free.
    for _ in 0..4 {
        let mut guest = pool.guest("guest", Behaviour::Busy, 1, Some("8ms/20ms"));
        // For several periods: what a guest has used lately is free only when its period is over.
        guest.progress(8);
        let (_, gone) = guest.kill();
        let account = gone.expect("it was there");
        assert!(account.vcpus[0].counters.runtime_ns > 0);
        assert!(!account.record.ended().expect("ended").is_success());
    }
    assert!(pool.names().is_empty());
    pool.runner.stop();
}

#[test]
fn a_guest_whose_vcpus_end_is_there_until_its_process_goes() {
    let pool = ServicePool::start(1);
    let guest = pool.guest("ends", Behaviour::Ends, 2, None);
    let list = pool.handle.list();
    assert!(list.is_empty() || list[0].state == GuestState::Running);
    let (status, gone) = guest.wait();
    assert!(status.success());
    assert_eq!(gone.expect("it was there").vcpus.len(), 2);
    assert!(pool.names().is_empty());
    pool.runner.stop();
}

#[test]
fn a_pool_ends_while_its_guests_run_and_sleep_and_they_outlive_it() {
    let pool = ServicePool::start(2);
    let mut guests = vec![
        pool.guest("busy", Behaviour::Busy, 2, None),
        pool.guest("halts", Behaviour::Halts, 2, None),
    ];
    guests.iter_mut().for_each(|guest| guest.progress(8));
    let report = pool.runner.stop();
    assert_eq!(report.vcpus.len(), 2);
    for mut guest in guests {
        // Their vCPUs' threads have the command to stop.
        guest.ended(2);
        assert!(guest.wait().0.success());
    }
}
