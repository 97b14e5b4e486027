use baton_config::GuestConfig;
use baton_machine::guest::GuestWiring;
use baton_machine::{Guest, GuestEnd, kvm};
use vcpu_sched::{Config, Hints, PolicyKind, SchedParams, StopReason};

use super::*;
use crate::executor::probes::PolicyProbes;

mod shown;

/// A pool of one host CPU with one guest of two vCPUs by best effort.
fn pool() -> (Arc<Pool>, Arc<GuestRecord>) {
    pool_of(SchedParams::BestEffort { weight: 100 })
}

/// A pool of one host CPU with one guest of two vCPUs with these parameters.
fn pool_of(params: SchedParams) -> (Arc<Pool>, Arc<GuestRecord>) {
    let kvm = kvm::open().expect("KVM");
    let config = GuestConfig {
        cpus: 2,
        ..GuestConfig::new("guest")
    };
    let wiring = GuestWiring {
        builtin: guest_tests::GUEST_ELF,
        ..GuestWiring::default()
    };
    let (guest, vcpus) = Guest::create_with(&kvm, 0, &config, wiring).expect("a guest");
    let mut sched = PolicyKind::Deadline.pool(Config::new(1), PolicyProbes::default());
    let name = sched.add_guest();
    for _ in 0..2 {
        let added = sched.add_vcpu(name, params, None);
        added.expect("room");
    }
    let record = Arc::clone(guest.record());
    let guest = NewGuest {
        guest,
        first: VcpuId(0),
        workers: Vec::new(),
    };
    let pool = Pool::new(
        sched,
        vec![guest],
        vcpus.into_iter(),
        Arc::new([0]),
        ThreadPriority::default(),
    );
    (Arc::new(pool), record)
}

#[test]
fn vcpus_of_an_ended_guest_go_when_the_lock_is_free_and_leave_their_counters() {
    let (pool, record) = pool();
    let mut state = pool.lock();
    let mut found = 0;
    for vcpu in state.in_pool() {
        vcpu.exits.halts = 7;
        found += 1;
    }
    assert_eq!(found, 2);
    drop(state);
    record.end(GuestEnd::Killed);
    pool.remove_guest(&record);
    let mut state = pool.lock();
    assert!(state.after_unlock().ended.is_empty());
    let exits = state.take_counters().map(|(_, exits)| exits.halts);
    assert_eq!(exits.collect::<Vec<_>>(), [7, 7]);
}

#[test]
fn a_guest_that_ends_when_its_run_is_over_changes_nothing() {
    let (pool, record) = pool();
    assert_eq!(pool.lock().take_counters().count(), 2);
    record.end(GuestEnd::Killed);
    pool.remove_guest(&record);
}

const CPU: CpuId = CpuId(0);
const ID: VcpuId = VcpuId(0);

/// vCPU 0, which has run on the CPU, has halted, and is to sleep.
fn halted(state: &mut PoolState) -> OwnedVcpu {
    state.sched.wake(ID, 0);
    let vcpu = state.pick(CPU, 0).expect("it is awake").vcpu;
    let (halt, hints) = (StopReason::Halted(None), Hints::default());
    state.sched.stop(CPU, halt, hints, CpuTime::ZERO, 0);
    let vcpu = state.send_to_sleep(vcpu).expect("its guest runs");
    assert!(state.pick(CPU, 0).is_none());
    vcpu
}

#[test]
fn a_sleep_ends_by_a_signal_to_its_halt_thread_or_by_a_kick_in_place() {
    let (pool, _) = pool();
    let mut state = pool.lock();
    let vcpu = halted(&mut state);
    let after = state.wake(CPU, ID, 0);
    assert_eq!(after.interrupts, [ID]);
    state.sleep_in_place(ID, CPU);
    let after = state.wake(CPU, ID, 0);
    assert!(after.interrupts.is_empty() && after.kicks.contains(CPU));
    assert!(state.end_sleep_in_place(vcpu, false, 0).is_none());
    assert!(state.pick(CPU, 0).is_some(), "it has come back");
}

#[test]
fn a_vcpu_that_the_policy_picks_while_it_sleeps_is_woken_to_be_picked_again() {
    let (pool, _) = pool();
    let mut state = pool.lock();
    let vcpu = halted(&mut state);
    state.sched.wake(ID, 0);
    assert!(state.pick(CPU, 0).is_none());
    assert_eq!(state.after_unlock().interrupts, [ID]);
    state.end_sleep(vcpu, 0);
    assert!(state.pick(CPU, 0).is_some());
}

#[test]
fn a_vcpu_that_sleeps_when_its_guest_ends_is_woken_and_ends_when_it_comes_back() {
    let (pool, record) = pool();
    let mut state = pool.lock();
    let vcpu = halted(&mut state);
    record.end(GuestEnd::Killed);
    let after = state.remove_guest(0);
    assert_eq!((&after.interrupts[..], after.ended.len()), (&[ID][..], 1));
    state.end_sleep(vcpu, 0);
    assert_eq!(state.after_unlock().ended.len(), 1);
}
