//! What a guest reads in its hint pages and steal time records about the switches between its vCPUs.

use std::mem::offset_of;
use std::sync::Arc;

use baton_abi::hints::{HintPage, HostHints};
use vcpu_sched::{CpuId, CpuTime, Hints, Ns, Reservation, SchedParams, StopReason, VcpuId};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::pool_of;
use crate::executor::assignment::Assignment;
use crate::executor::owned_vcpu::OwnedVcpu;
use crate::executor::pool::Pool;
use crate::executor::pool_state::PoolState;
use crate::executor::switch::{OffCpu, show_switch};
use crate::sync::MutexGuard;

const CPU: CpuId = CpuId(0);
const MS: Ns = 1_000_000;
const PAGE: u64 = 4096;
/// Frame number of the hint page of vCPU 0; those of the others follow.
const FIRST_HINT_PAGE: u32 = 0x200;
/// Address of the steal time record of vCPU 0; those of the others follow.
const FIRST_STEAL_RECORD: u64 = 0x30_0000;
/// Size of a steal time record, and where `preempted` is in it.
const STEAL_RECORD: u64 = 64;
const PREEMPTED: u64 = 16;
/// The bit of the MSR by which a guest registers its record.
const ENABLED: u64 = 1;

/// A pool of one CPU with a guest of two vCPUs that have registered their pages and records, both awake at 0.
fn registered(params: SchedParams) -> Arc<Pool> {
    let (pool, _) = pool_of(params);
    let mut state = pool.lock();
    for vcpu in state.in_pool() {
        let index = vcpu.index;
        let memory = vcpu.guest.memory().regions();
        let page = FIRST_HINT_PAGE + index;
        let registered = vcpu.guest.hints.register(index, page, memory);
        registered.expect("a page in RAM");
        let record = FIRST_STEAL_RECORD + u64::from(index) * STEAL_RECORD;
        assert!(vcpu.guest.register_steal_time(index, record | ENABLED));
    }
    for id in [0, 1].map(VcpuId) {
        state.sched.wake(id, 0);
    }
    drop(state);
    pool
}

/// A vCPU, and what its guest reads about it.
struct Shown<'a>(&'a Assignment);

impl Shown<'_> {
    fn read<T: ByteValued>(&self, address: u64) -> T {
        let OwnedVcpu::Local(vcpu) = &self.0.vcpu else {
            panic!("it is one of this process");
        };
        let regions = vcpu.guest.memory().regions();
        regions.read_obj(GuestAddress(address)).expect("in RAM")
    }

    fn hint<T: ByteValued>(&self, index: u32, field: usize) -> T {
        let page = u64::from(FIRST_HINT_PAGE + index) * PAGE;
        self.read(page + (offset_of!(HintPage, host) + field) as u64)
    }

    fn runs(&self, index: u32) -> bool {
        self.hint::<u32>(index, offset_of!(HostHints, running)) == 1
    }

    fn preemptions(&self, index: u32) -> u32 {
        self.hint(index, offset_of!(HostHints, preemptions))
    }

    fn record(index: u32) -> u64 {
        FIRST_STEAL_RECORD + u64::from(index) * STEAL_RECORD
    }

    /// Whether the record has `index` as preempted.
    fn is_preempted(&self, index: u32) -> bool {
        self.read::<u8>(Self::record(index) + PREEMPTED) == 1
    }

    /// The steal time in the hint page and in the record, ns.
    fn steal(&self, index: u32) -> (Ns, Ns) {
        let hint = self.hint(index, offset_of!(HostHints, steal_ns));
        (hint, self.read(Self::record(index)))
    }
}

/// `assignment` stops for `reason` at `now`, and the next vCPU is picked and shown.
fn switch(
    state: &mut MutexGuard<'_, PoolState>,
    assignment: Assignment,
    reason: StopReason,
    ran: Ns,
    now: Ns,
) -> Option<Assignment> {
    let off = OffCpu::new(&assignment.vcpu, reason);
    let ran = CpuTime(ran);
    state.sched.stop(CPU, reason, Hints::default(), ran, now);
    state.put_back(assignment.vcpu);
    let mut next = state.pick(CPU, now);
    show_switch(state, Some(&off), next.as_mut(), now);
    next
}

fn first(state: &mut MutexGuard<'_, PoolState>, now: Ns) -> Assignment {
    let mut first = state.pick(CPU, now).expect("a vCPU that is awake");
    show_switch(state, None, Some(&mut first), now);
    first
}

#[test]
fn a_switch_shows_which_vcpu_runs_and_that_the_other_was_preempted_only_if_it_has_work() {
    let pool = registered(SchedParams::BestEffort { weight: 100 });
    let mut state = pool.lock();
    let a = first(&mut state, 0);
    let (of_a, of_b) = (a.vcpu.index(), 1 - a.vcpu.index());
    let shown = Shown(&a);
    assert!(shown.runs(of_a) && !shown.runs(of_b));

    let b = switch(&mut state, a, StopReason::Preempted, 4 * MS, 4 * MS).expect("the other");
    assert_eq!(b.vcpu.index(), of_b);
    let shown = Shown(&b);
    assert!(!shown.runs(of_a) && shown.runs(of_b));
    assert!(shown.is_preempted(of_a) && !shown.is_preempted(of_b));
    assert_eq!((shown.preemptions(of_a), shown.preemptions(of_b)), (1, 0));

    let halted = StopReason::Halted(None);
    let a = switch(&mut state, b, halted, 4 * MS, 8 * MS).expect("the first");
    let shown = Shown(&a);
    assert!(shown.runs(of_a) && !shown.runs(of_b));
    assert!(!shown.is_preempted(of_a) && !shown.is_preempted(of_b));
    assert_eq!((shown.preemptions(of_a), shown.preemptions(of_b)), (1, 0));

    let a = switch(&mut state, a, StopReason::Preempted, 4 * MS, 12 * MS).expect("it goes on");
    let shown = Shown(&a);
    assert!(shown.runs(of_a) && !shown.is_preempted(of_a));
    assert_eq!(shown.preemptions(of_a), 1, "it was not off its CPU");
}

#[test]
fn waits_for_a_cpu_and_for_a_budget_are_shown_as_steal_time_each_once() {
    let hard = Reservation::hard(MS, 100 * MS).expect("a reservation");
    let pool = registered(SchedParams::Reserved(hard));
    let mut state = pool.lock();
    let a = first(&mut state, 3 * MS);
    let (of_a, of_b) = (a.vcpu.index(), 1 - a.vcpu.index());
    assert_eq!(Shown(&a).steal(of_a), (3 * MS, 3 * MS));

    let b = switch(&mut state, a, StopReason::Preempted, MS, 4 * MS).expect("the other");
    assert_eq!(Shown(&b).steal(of_b), (4 * MS, 4 * MS));
    assert!(switch(&mut state, b, StopReason::Preempted, MS, 5 * MS).is_none());

    // Both were throttled from then on, and get new budgets at 100 ms.
    let a = first(&mut state, 107 * MS);
    assert_eq!(a.vcpu.index(), of_a);
    let all = 3 * MS + 103 * MS;
    assert_eq!(Shown(&a).steal(of_a), (all, all));
    assert_eq!(Shown(&a).steal(of_b), (4 * MS, 4 * MS));
}

#[test]
fn what_the_host_took_from_a_vcpu_on_a_cpu_is_shown_as_steal_time_once() {
    let pool = registered(SchedParams::BestEffort { weight: 100 });
    let mut state = pool.lock();
    let mut a = first(&mut state, 0);
    let of_a = a.vcpu.index();
    assert_eq!(Shown(&a).steal(of_a), (0, 0));

    // A long gap is shown at once. The host steal of its run has the rest, too.
    let OwnedVcpu::Local(vcpu) = &mut a.vcpu else {
        panic!("it is one of this process");
    };
    vcpu.guest.hints.add_steal(of_a, 1_500 * MS);
    vcpu.guest.steal.add(of_a, 1_500 * MS);
    vcpu.steal_shown_in_run += 1_500 * MS;
    state.sched.host_took(a.vcpu.id(), CpuTime(1_600 * MS));
    let b = switch(&mut state, a, StopReason::Preempted, 4 * MS, 1_604 * MS).expect("the other");
    let waited_by_b = 1_604 * MS;
    let a = switch(&mut state, b, StopReason::Preempted, 4 * MS, 1_608 * MS).expect("the first");
    assert_eq!(a.vcpu.index(), of_a);
    let all = 1_600 * MS + 4 * MS;
    assert_eq!(Shown(&a).steal(of_a), (all, all));
    assert_eq!(Shown(&a).steal(1 - of_a), (waited_by_b, waited_by_b));
}
