//! What a decision costs: one `stop` and one `pick`, as an executor makes them at each exit.
//!
//! Every vCPU is always runnable, so all queues are as long as they get. Time advances by 100 us at each
//! decision, so budgets end, deadlines move and timers fire as in a real pool.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vcpu_sched::{
    Config, CpuId, CpuTime, Hints, Ns, Reservation, SchedParams, Scheduler, StopReason, VcpuId,
    Wait, WaitKind,
};

const MS: Ns = 1_000_000;

/// Pool sizes: (host CPUs, vCPUs).
const SIZES: [(usize, u64); 16] = [
    (1, 10),
    (1, 100),
    (1, 1_000),
    (1, 10_000),
    (8, 10),
    (8, 100),
    (8, 1_000),
    (8, 10_000),
    (32, 10),
    (32, 100),
    (32, 1_000),
    (32, 10_000),
    (128, 10),
    (128, 100),
    (128, 1_000),
    (128, 10_000),
];

/// A full pool in motion.
struct Pool {
    policy: Scheduler,
    cpus: u32,
    next: u32,
    now: Ns,
}

impl Pool {
    /// `reserved`: reservations with various periods, 90 % of the pool in all; else best effort.
    fn new(cpus: usize, vcpus: u64, reserved: bool) -> Self {
        let mut policy = Scheduler::new(Config::new(cpus));
        for index in 0..vcpus {
            let guest = policy.add_guest();
            let period = (10 + index % 90) * MS;
            let share = (cpus as u64 * 900).div_ceil(vcpus).min(900);
            let params = if reserved {
                let budget = (period / 1000 * share).max(10_000);
                SchedParams::Reserved(Reservation::hard(budget, period).expect("a reservation"))
            } else {
                let weight = 1 + (index % 100) as u32;
                SchedParams::BestEffort { weight }
            };
            let Ok(vcpu) = policy.add_vcpu(guest, params, None) else {
                break;
            };
            policy.wake(vcpu, 0);
        }
        let mut pool = Self {
            policy,
            cpus: cpus as u32,
            next: 0,
            now: 0,
        };
        for cpu in 0..pool.cpus {
            pool.policy.pick(CpuId(cpu), 0);
        }
        for _ in 0..10_000 {
            pool.decide();
        }
        pool
    }

    /// The next CPU's vCPU is stopped, and the CPU picks.
    fn decide(&mut self) {
        let cpu = CpuId(self.next);
        self.next = (self.next + 1) % self.cpus;
        self.now += 100_000 / u64::from(self.cpus);
        self.policy.stop(
            cpu,
            StopReason::Preempted,
            Hints::default(),
            CpuTime(100_000),
            self.now,
        );
        black_box(self.policy.pick(cpu, self.now));
        black_box(self.policy.take_kicks());
    }
}

fn stop_and_pick(c: &mut Criterion) {
    for (name, reserved) in [("reserved", true), ("best_effort", false)] {
        let mut group = c.benchmark_group(format!("stop_and_pick/{name}"));
        for (cpus, vcpus) in SIZES {
            let mut pool = Pool::new(cpus, vcpus, reserved);
            let id = BenchmarkId::new(format!("{cpus}_cpus"), vcpus);
            group.bench_function(id, |b| b.iter(|| pool.decide()));
        }
        group.finish();
    }
}

/// vCPUs halt and wake: one CPU goes through a thousand of them.
fn wake_and_halt(c: &mut Criterion) {
    let mut group = c.benchmark_group("wake_pick_halt");
    for vcpus in [10, 100, 1_000, 10_000] {
        let mut policy = Scheduler::new(Config::new(8));
        let all: Vec<VcpuId> = (0..vcpus)
            .filter_map(|_| {
                let guest = policy.add_guest();
                let params = SchedParams::Reserved(Reservation::hard(10_000, 100 * MS).ok()?);
                policy.add_vcpu(guest, params, None).ok()
            })
            .collect();
        let (mut now, mut next) = (0, 0);
        group.bench_function(BenchmarkId::from_parameter(vcpus), |b| {
            b.iter(|| {
                now += 10_000;
                next = (next + 1) % all.len();
                policy.wake(all[next], now);
                black_box(policy.pick(CpuId(0), now));
                let why = StopReason::Halted(None);
                policy.stop(CpuId(0), why, Hints::default(), CpuTime(1_000), now);
                black_box(policy.take_kicks());
            });
        });
    }
    group.finish();
}

/// A donor at the head of a chain, stopped and picked again: the walk to the holder at its end.
fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("proxy_chain");
    for length in 0..=8_u64 {
        let mut policy = Scheduler::new(Config::new(1));
        let guest = policy.add_guest();
        let cpu = CpuId(0);
        let mut before = None;
        for index in 0..=length {
            let reservation = Reservation::hard(100 * MS, (3_000 - index) * MS);
            let params = SchedParams::Reserved(reservation.expect("a reservation"));
            let vcpu = policy.add_vcpu(guest, params, None).expect("it fits");
            policy.wake(vcpu, 0);
            policy.pick(cpu, 0);
            let wait = before.map(|holder| Wait {
                kind: WaitKind::Spin,
                lock: 1,
                holder,
                holder_releases: 0,
            });
            let hints = Hints {
                wait,
                ..Hints::default()
            };
            policy.stop(cpu, StopReason::Rang, hints, CpuTime::ZERO, 0);
            before = Some(vcpu);
        }
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| {
                let decision = policy.pick(cpu, 0);
                assert_eq!(decision.map(|d| u64::from(d.chain)), Some(length));
                policy.stop(
                    cpu,
                    StopReason::Preempted,
                    Hints::default(),
                    CpuTime::ZERO,
                    0,
                );
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stop_and_pick, wake_and_halt, chains);
criterion_main!(benches);
