use baton_config::GuestConfig;
use baton_machine::guest::GuestWiring;
use baton_machine::{Guest, GuestEnd, kvm};
use vcpu_sched::{Config, PolicyKind, SchedParams};

use super::*;
use crate::executor::probes::PolicyProbes;

/// A pool of one host CPU with one guest of two vCPUs.
fn pool() -> (Arc<Pool>, Arc<GuestRecord>) {
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
        let added = sched.add_vcpu(name, SchedParams::BestEffort { weight: 100 }, None);
        added.expect("room");
    }
    let record = Arc::clone(guest.record());
    let guest = NewGuest {
        guest,
        first: VcpuId(0),
        workers: Vec::new(),
    };
    let pool = Pool::new(sched, vec![guest], vcpus.into_iter(), Arc::new([0]));
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
