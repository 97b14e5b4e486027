use baton_config::{ExecutorPriority, GuestConfig, LateHalts};
use baton_machine::guest::GuestWiring;
use baton_machine::{Guest, GuestEnd, kvm};
use kvm_ioctls::Kvm;
use vcpu_sched::{Config, Hints, PolicyKind, SchedParams, StopReason, VcpuId, WorkerId};

use super::*;
use crate::executor::admission;
use crate::executor::halt_threads;
use crate::executor::local_vcpu::LocalVcpu;
use crate::executor::policy_ids::PolicyIds;
use crate::executor::pool_guest::PoolGuest;
use crate::executor::probes::PolicyProbes;
use crate::ready_guest::ReadyGuest;

mod changes;
mod membership;
mod shown;

/// A pool of one host CPU with one guest of two vCPUs by best effort.
fn pool() -> (Arc<Pool>, Arc<GuestRecord>) {
    pool_of(SchedParams::BestEffort { weight: 100 })
}

/// A pool of one host CPU without guests.
fn empty_pool() -> Pool {
    empty_pool_of(&[0])
}

/// A pool of these host CPUs without guests.
fn empty_pool_of(host_cpus: &[usize]) -> Pool {
    let config = Config::new(host_cpus.len());
    let sched = PolicyKind::Deadline.pool(config, PolicyProbes::default());
    let settings = PoolSettings {
        priority: ThreadPriority::default(),
        foreign_priority: ExecutorPriority::Off,
        can_sleep: false,
        own_threads: false,
        late_halts: LateHalts::Allow,
    };
    Pool::new(sched, host_cpus.into(), settings)
}

/// A guest of two vCPUs.
fn ready_guest(kvm: &Kvm, name: &str) -> ReadyGuest {
    let config = GuestConfig::new(name).with_cpus(2);
    let wiring = GuestWiring {
        builtin: guest_tests::GUEST_ELF,
        ..GuestWiring::default()
    };
    let (guest, vcpus) = Guest::create_with(kvm, 0, &config, wiring).expect("a guest");
    ReadyGuest {
        guest,
        config,
        vcpus,
    }
}

/// A pool of one host CPU with one guest of two vCPUs with these parameters.
fn pool_of(params: SchedParams) -> (Arc<Pool>, Arc<GuestRecord>) {
    let kvm = kvm::open().expect("KVM");
    let ReadyGuest { guest, vcpus, .. } = ready_guest(&kvm, "guest");
    let pool = Arc::new(empty_pool());
    let mut state = pool.lock();
    let requests = [(params, None); 2];
    let admitted = admission::admit(&mut state.sched, &requests, 0, 0).expect("room");
    let (ids, record) = (admitted.ids, Arc::clone(guest.record()));
    let of_guest = PoolGuest::new(Arc::clone(&record), ids.clone(), Vec::new(), Vec::new());
    state.add(of_guest);
    let owned = vcpus.into_iter().zip(&**ids.vcpus()).map(|(vcpu, &id)| {
        let threads = halt_threads::none(&pool);
        OwnedVcpu::Local(LocalVcpu::new(id, ids.clone(), vcpu, threads))
    });
    state.place(ids.guest(), owned.collect(), Vec::new());
    drop(state);
    (pool, record)
}

/// The vCPUs whose sleep on a halt thread is to end.
fn interrupted(after: &AfterUnlock) -> Vec<VcpuId> {
    after.interrupts.iter().map(|(id, _)| *id).collect()
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
    let accounts = state.finish(0);
    let exits = accounts[0].iter().map(|account| account.exits.halts);
    assert_eq!(exits.collect::<Vec<_>>(), [7, 7]);
}

#[test]
fn a_guest_that_ends_when_its_run_is_over_changes_nothing() {
    let (pool, record) = pool();
    assert_eq!(pool.lock().finish(0)[0].len(), 2);
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
    assert_eq!(interrupted(&after), [ID]);
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
    assert_eq!(interrupted(&state.after_unlock()), [ID]);
    state.end_sleep(vcpu, 0);
    assert!(state.pick(CPU, 0).is_some());
}

#[test]
fn a_vcpu_that_sleeps_when_its_guest_ends_is_woken_and_ends_when_it_comes_back() {
    let (pool, record) = pool();
    let mut state = pool.lock();
    let vcpu = halted(&mut state);
    record.end(GuestEnd::Killed);
    state.remove_guest(&record);
    let after = state.after_unlock();
    assert_eq!(
        (&interrupted(&after)[..], after.ended.len()),
        (&[ID][..], 1)
    );
    state.end_sleep(vcpu, 0);
    assert_eq!(state.after_unlock().ended.len(), 1);
}
