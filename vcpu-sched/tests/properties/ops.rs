//! What a caller may do, at random.

use proptest::prelude::*;
use vcpu_sched::{Exhaustion, Hints, Ns, Reservation, SchedParams, VcpuId, Wait, WaitKind};

use crate::US;

pub const GUESTS: u32 = 3;
/// Locks are named by numbers from 0.
pub const LOCKS: u64 = 2;

/// What a caller does. Numbers name vCPUs and CPUs modulo how many there are. The vCPUs that a running vCPU
/// names are mostly its siblings: see [`Machine::sibling`].
#[derive(Clone, Debug)]
pub enum Op {
    Add(u32, SchedParams, u32),
    Wake(u32),
    Remove(u32),
    /// Lets time pass. CPUs reschedule when their time is up or when they are kicked.
    Pass(Ns),
    /// The running vCPU stops by itself.
    Stop(u32, Why, Hints),
    Release(u32, Option<u32>),
    /// The running vCPU wakes another one.
    WakeBy(u32, u32),
    /// The running vCPU reports that it has handed a lock to another one, which may not exist.
    HandOver(u32, u64, u32),
    Defer(u32, Hints),
    /// Another thread has used this much CPU time for a vCPU; if the flag is set, for its sleep.
    Spend(u32, Ns, bool),
    /// The worker of a guest has something to do.
    WorkerReady(u32),
    /// The worker has used this much, and stops.
    WorkerStopped(u32, Ns),
    /// The guest is removed.
    RemoveGuest(u32),
    /// A guest that was removed is reclaimed, if that is possible yet, and a new one has its names.
    Reclaim(u32),
    Pause(u32),
    Resume(u32),
    SetReservation(u32, Reservation),
    SetWeight(u32, u32),
    SetAllowed(u32, u32),
    /// A CPU goes offline.
    Offline(u32),
    /// A CPU goes online.
    Online(u32),
    /// The pool gets a CPU that it has given up.
    AddCpu(u32),
    /// The pool gives a CPU up, if it can.
    RemoveCpu(u32),
}

#[derive(Clone, Copy, Debug)]
pub enum Why {
    Rang,
    Halted,
    Sleeps(Ns),
    Ended,
}

pub fn reservation() -> impl Strategy<Value = SchedParams> {
    any_reservation().prop_map(SchedParams::Reserved)
}

fn any_reservation() -> impl Strategy<Value = Reservation> {
    (1..40_u64, 1..=10_u64, 1..=10_u64, any::<bool>()).prop_map(|(period, d, q, soft)| {
        let period = period * 250 * US;
        let deadline = period * (10 + d) / 20;
        let budget = (deadline * q / 30).max(10 * US);
        let exhaustion = if soft {
            Exhaustion::Soft
        } else {
            Exhaustion::Hard
        };
        Reservation::new(budget, period, deadline, exhaustion).unwrap()
    })
}

pub fn params() -> impl Strategy<Value = SchedParams> {
    prop_oneof![
        3 => reservation(),
        1 => (1..1000_u32).prop_map(|weight| SchedParams::BestEffort { weight }),
    ]
}

pub fn hints() -> impl Strategy<Value = Hints> {
    let kind = prop_oneof![
        4 => Just(WaitKind::Spin),
        4 => Just(WaitKind::Block),
        1 => Just(WaitKind::Suspect),
    ];
    let wait = (kind, 0..LOCKS, 0..14_u32, 0..2_u32);
    let wait = wait.prop_map(|(kind, lock, holder, holder_releases)| Wait {
        kind,
        lock,
        holder: VcpuId(holder),
        holder_releases,
    });
    let counts = (0..3_u32, 0..2_u32);
    let guess = (prop::bool::weighted(0.3), any::<bool>());
    let all = (counts, prop::option::weighted(0.8, wait), guess);
    all.prop_map(|((depth, releases), wait, (waits, is_guess))| Hints {
        depth,
        releases,
        wait,
        waits,
        is_guess,
    })
}

/// The first operations: some vCPUs are added, all awake, most of them with siblings.
pub fn crowd() -> impl Strategy<Value = Vec<Op>> {
    let add = (0..GUESTS, params(), 0..16_u32).prop_map(|(g, c, p)| Op::Add(g / 2, c, p));
    prop::collection::vec(add, 0..12).prop_map(|mut crowd| {
        let count = crowd.len() as u32;
        crowd.extend((0..count).map(Op::Wake));
        crowd
    })
}

pub fn op() -> impl Strategy<Value = Op> {
    let why = prop_oneof![
        6 => Just(Why::Rang),
        5 => Just(Why::Halted),
        4 => (1..5_000_u64).prop_map(|time| Why::Sleeps(time * US)),
        1 => Just(Why::Ended),
    ];
    prop_oneof![
        3 => (0..GUESTS, params(), 0..16_u32).prop_map(|(g, c, p)| Op::Add(g, c, p)),
        6 => any::<u32>().prop_map(Op::Wake),
        1 => any::<u32>().prop_map(Op::Remove),
        6 => (0..3_000_u64).prop_map(|time| Op::Pass(time * US)),
        2 => (0..100_u64).prop_map(Op::Pass),
        12 => (any::<u32>(), why, hints()).prop_map(|(c, w, h)| Op::Stop(c, w, h)),
        2 => (any::<u32>(), prop::option::of(0..14_u32)).prop_map(|(c, to)| Op::Release(c, to)),
        4 => any::<(u32, u32)>().prop_map(|(c, v)| Op::WakeBy(c, v)),
        4 => (any::<u32>(), 0..LOCKS, 0..14_u32).prop_map(|(c, l, to)| Op::HandOver(c, l, to)),
        2 => (any::<u32>(), hints()).prop_map(|(c, hints)| Op::Defer(c, hints)),
        2 => (any::<u32>(), 0..2_000_u64, any::<bool>())
            .prop_map(|(v, time, sleeps)| Op::Spend(v, time * US, sleeps)),
        3 => (0..GUESTS).prop_map(Op::WorkerReady),
        3 => (0..GUESTS, 0..300_u64).prop_map(|(g, time)| Op::WorkerStopped(g, time * US)),
        1 => (0..GUESTS).prop_map(Op::RemoveGuest),
        2 => (0..GUESTS).prop_map(Op::Reclaim),
        2 => (0..GUESTS).prop_map(Op::Pause),
        3 => (0..GUESTS).prop_map(Op::Resume),
        3 => (any::<u32>(), any_reservation()).prop_map(|(v, r)| Op::SetReservation(v, r)),
        2 => (any::<u32>(), 1..1000_u32).prop_map(|(v, weight)| Op::SetWeight(v, weight)),
        2 => (any::<u32>(), 0..16_u32).prop_map(|(v, pin)| Op::SetAllowed(v, pin)),
        2 => any::<u32>().prop_map(Op::Offline),
        3 => any::<u32>().prop_map(Op::Online),
        2 => any::<u32>().prop_map(Op::AddCpu),
        2 => any::<u32>().prop_map(Op::RemoveCpu),
    ]
}

/// What other guests do beside the only vCPU of guest 2, whose number is 0.
pub fn op_of_others() -> impl Strategy<Value = Op> {
    let wakes = prop_oneof![1 => Just(Op::Wake(0)), 4 => any::<u32>().prop_map(Op::Wake)];
    prop_oneof![
        3 => wakes,
        6 => op().prop_filter("what others do", |op| {
            !matches!(
                op,
                Op::Add(..)
                    | Op::Remove(_)
                    | Op::RemoveGuest(2)
                    | Op::Pause(2)
                    | Op::SetReservation(..)
                    | Op::WorkerReady(2)
                    | Op::WorkerStopped(2, _)
                    | Op::Offline(_)
                    | Op::Online(_)
                    | Op::AddCpu(_)
                    | Op::RemoveCpu(_)
            )
        }),
    ]
}
