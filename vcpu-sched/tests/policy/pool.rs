//! A pool with a clock: the small language in which the tests are written.

use vcpu_sched::{
    Config, Counters, CpuId, CpuSet, CpuTime, Decision, Event, GuestId, Hints, Ns, Reservation,
    SchedParams, Scheduler, StopReason, VcpuId, Wait, WaitKind,
};

pub const US: Ns = 1_000;
pub const MS: Ns = 1_000_000;
/// The lock that tests use when there is only one.
pub const LOCK: u64 = 0x1000;

pub struct Pool {
    pub policy: Scheduler<Vec<(Ns, Event)>>,
    pub now: Ns,
    since: Vec<Ns>,
}

impl Pool {
    pub fn new(cpus: usize) -> Self {
        Self::with(Config::new(cpus))
    }

    pub fn with(config: Config) -> Self {
        Self {
            policy: Scheduler::with_events(config, Vec::new()),
            now: 0,
            since: vec![0; config.cpus],
        }
    }

    pub fn guest(&mut self) -> GuestId {
        self.policy.add_guest()
    }

    /// A hard reservation of `q` in every `p` milliseconds.
    pub fn hard(&mut self, guest: GuestId, q: u64, p: u64) -> VcpuId {
        self.hard_on(guest, q, p, None)
    }

    pub fn hard_on(&mut self, guest: GuestId, q: u64, p: u64, cpus: Option<&[u32]>) -> VcpuId {
        let params = SchedParams::Reserved(Reservation::hard(q * MS, p * MS).unwrap());
        let cpus = cpus.map(|cpus| cpus.iter().map(|&c| CpuId(c)).collect::<CpuSet>());
        self.policy.add_vcpu(guest, params, cpus).unwrap()
    }

    pub fn best_effort(&mut self, guest: GuestId, weight: u32) -> VcpuId {
        let params = SchedParams::BestEffort { weight };
        self.policy.add_vcpu(guest, params, None).unwrap()
    }

    pub fn wake(&mut self, vcpu: VcpuId) {
        self.policy.wake(vcpu, self.now);
    }

    pub fn decide(&mut self, cpu: u32) -> Option<Decision> {
        self.since[cpu as usize] = self.now;
        self.policy.pick(CpuId(cpu), self.now)
    }

    /// Picks, and returns (donor, curr).
    pub fn pick(&mut self, cpu: u32) -> Option<(VcpuId, VcpuId)> {
        self.decide(cpu).map(|d| (d.donor, d.curr))
    }

    pub fn pass(&mut self, time: Ns) {
        self.now += time;
    }

    pub fn stop(&mut self, cpu: u32, why: StopReason, hints: Hints) {
        let ran = self.now - self.since[cpu as usize];
        self.since[cpu as usize] = self.now;
        self.policy
            .stop(CpuId(cpu), why, hints, CpuTime(ran), self.now);
    }

    /// Runs on for `time`, then stops.
    pub fn run(&mut self, cpu: u32, time: Ns, why: StopReason, hints: Hints) {
        self.pass(time);
        self.stop(cpu, why, hints);
    }

    pub fn release(&mut self, cpu: u32, to: Option<VcpuId>) {
        self.policy.release(CpuId(cpu), to, self.now);
    }

    pub fn kicks(&mut self) -> Vec<u32> {
        self.policy.take_kicks().iter().map(|c| c.0).collect()
    }

    pub fn counters(&self, vcpu: VcpuId) -> Counters {
        self.policy.counters(vcpu)
    }

    pub fn saw(&self, event: Event) -> bool {
        self.policy.events.iter().any(|&(_, e)| e == event)
    }

    /// `vcpu` runs on `cpu`, takes a lock and is preempted right away, all at this moment.
    pub fn preempt_holder(&mut self, vcpu: VcpuId, cpu: u32) {
        self.wake(vcpu);
        assert_eq!(self.pick(cpu), Some((vcpu, vcpu)), "no other vCPU competes");
        self.stop(cpu, StopReason::Preempted, holding());
    }

    /// `vcpu` runs on `cpu` and rings because it waits for `holder`.
    pub fn ring(&mut self, vcpu: VcpuId, cpu: u32, hints: Hints) {
        self.wake(vcpu);
        assert_eq!(self.pick(cpu), Some((vcpu, vcpu)), "it is the earliest");
        self.stop(cpu, StopReason::Rang, hints);
    }
}

pub fn quiet() -> Hints {
    Hints::default()
}

pub fn holding() -> Hints {
    Hints {
        depth: 1,
        ..Hints::default()
    }
}

pub fn waits(kind: WaitKind, holder: VcpuId) -> Hints {
    Hints {
        wait: Some(Wait {
            kind,
            lock: LOCK,
            holder,
            holder_releases: 0,
        }),
        ..Hints::default()
    }
}

pub fn spins_on(holder: VcpuId) -> Hints {
    waits(WaitKind::Spin, holder)
}

pub fn sleeps_on(holder: VcpuId) -> Hints {
    waits(WaitKind::Block, holder)
}
