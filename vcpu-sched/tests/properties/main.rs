//! Random sequences of everything that a caller can do, against what must hold after each call.
//! `Scheduler` checks its own invariants in debug builds; here stand the promises that can be seen
//! from outside, and `sim::audit` for those about order and loss.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use vcpu_sched::sim::audit;
use vcpu_sched::{
    Claim, Config, CpuId, CpuSet, Doing, Event, Exhaustion, GuestId, Hints, Ns, Reservation,
    Scheduler, Stop, VcpuId, VcpuView, Wait, WaitKind,
};

const US: Ns = 1_000;
const GUESTS: u32 = 3;
/// Locks are named by numbers from 0.
const LOCKS: u64 = 2;

/// What a caller does. Numbers name vCPUs and CPUs modulo how many there are; those for which, or to
/// which, what runs refers are mostly its siblings: see [`Machine::sibling`].
#[derive(Clone, Debug)]
enum Op {
    Add(u32, Claim, u32),
    Wake(u32),
    Remove(u32),
    /// Lets time pass; CPUs are served when their time is up, or kicked.
    Pass(Ns),
    /// What runs stops by itself.
    Stop(u32, Why, Hints),
    Release(u32, Option<u32>),
    /// What runs wakes another one.
    WakeBy(u32, u32),
    /// What runs says that it has handed a lock to another one, or to nobody that there is.
    HandOver(u32, u64, u32),
    Defer(u32, u32),
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Rang,
    Halted,
    Naps(Ns),
    Ended,
}

fn reservation() -> impl Strategy<Value = Claim> {
    (1..40_u64, 1..=10_u64, 1..=10_u64, any::<bool>()).prop_map(|(period, d, q, soft)| {
        let period = period * 250 * US;
        let deadline = period * (10 + d) / 20;
        let budget = (deadline * q / 30).max(10 * US);
        let exhaustion = if soft {
            Exhaustion::Soft
        } else {
            Exhaustion::Hard
        };
        Claim::Reserved(Reservation::new(budget, period, deadline, exhaustion).unwrap())
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        3 => reservation(),
        1 => (1..1000_u32).prop_map(|weight| Claim::BestEffort { weight }),
    ]
}

fn hints() -> impl Strategy<Value = Hints> {
    let wait = (any::<bool>(), 0..LOCKS, 0..14_u32, 0..2_u32);
    let wait = wait.prop_map(|(spin, lock, holder, holder_releases)| Wait {
        kind: if spin {
            WaitKind::Spin
        } else {
            WaitKind::Block
        },
        lock,
        holder: VcpuId(holder),
        holder_releases,
    });
    (0..3_u32, 0..2_u32, prop::option::weighted(0.8, wait)).prop_map(|(depth, releases, wait)| {
        Hints {
            depth,
            releases,
            wait,
        }
    })
}

/// What there is before anything else happens: some vCPUs, all awake, most of them with siblings.
fn crowd() -> impl Strategy<Value = Vec<Op>> {
    let add = (0..GUESTS, claim(), 0..16_u32).prop_map(|(g, c, p)| Op::Add(g / 2, c, p));
    prop::collection::vec(add, 0..12).prop_map(|mut crowd| {
        let count = crowd.len() as u32;
        crowd.extend((0..count).map(Op::Wake));
        crowd
    })
}

fn op() -> impl Strategy<Value = Op> {
    let why = prop_oneof![
        6 => Just(Why::Rang),
        5 => Just(Why::Halted),
        4 => (1..5_000_u64).prop_map(|time| Why::Naps(time * US)),
        1 => Just(Why::Ended),
    ];
    prop_oneof![
        3 => (0..GUESTS, claim(), 0..16_u32).prop_map(|(g, c, p)| Op::Add(g, c, p)),
        6 => any::<u32>().prop_map(Op::Wake),
        1 => any::<u32>().prop_map(Op::Remove),
        6 => (0..3_000_u64).prop_map(|time| Op::Pass(time * US)),
        2 => (0..100_u64).prop_map(Op::Pass),
        12 => (any::<u32>(), why, hints()).prop_map(|(c, w, h)| Op::Stop(c, w, h)),
        2 => (any::<u32>(), prop::option::of(0..14_u32)).prop_map(|(c, to)| Op::Release(c, to)),
        4 => any::<(u32, u32)>().prop_map(|(c, v)| Op::WakeBy(c, v)),
        4 => (any::<u32>(), 0..LOCKS, 0..14_u32).prop_map(|(c, l, to)| Op::HandOver(c, l, to)),
        2 => (any::<u32>(), 0..3_u32).prop_map(|(c, depth)| Op::Defer(c, depth)),
    ]
}

/// What one CPU does, as its executor knows it.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    running: Option<(VcpuId, VcpuId)>,
    since: Ns,
    /// When it looks again by itself.
    until: Option<Ns>,
    kicked: bool,
    /// Its kick is put off.
    deferred: bool,
}

/// A vCPU, as its creator knows it.
#[derive(Clone, Debug)]
struct Known {
    guest: GuestId,
    claim: Claim,
    added: Ns,
    removed: bool,
    /// Charged beyond the end of a decision: graces, and kicks that came late.
    overrun: Ns,
    /// What it ran, and what ran on its budget, as the executors know it.
    ran: Ns,
    paid: Ns,
    /// Whether it said last that it sleeps for a lock, and does not spin.
    blocks: bool,
}

/// For whom a vCPU waits, and with which lock.
type Edge = Option<(VcpuId, u64)>;

/// Those who wait for `from` with `lock` wait for `to` now; that one waits no longer.
fn pass_on(edges: &mut [Edge], from: VcpuId, lock: u64, to: VcpuId) {
    for (index, edge) in edges.iter_mut().enumerate() {
        if *edge == Some((from, lock)) {
            *edge = (index != to.index()).then_some((to, lock));
        }
    }
}

struct Machine {
    policy: Scheduler<Vec<(Ns, Event)>>,
    cpus: Vec<Cpu>,
    vcpus: Vec<Known>,
    now: Ns,
    /// Whether kicks are answered before time goes on.
    prompt: bool,
    /// What each vCPU says that it has released when it is preempted.
    releases: u32,
}

impl Machine {
    fn new(cpus: usize, proxy: bool, prompt: bool) -> Self {
        let config = Config {
            proxy,
            slice_ns: 500 * US,
            park_ns: 300 * US,
            ..Config::new(cpus)
        };
        let mut policy = Scheduler::with_events(config, Vec::new());
        for _ in 0..GUESTS {
            policy.add_guest();
        }
        let idle = Cpu {
            running: None,
            since: 0,
            until: Some(0),
            kicked: false,
            deferred: false,
        };
        let mut machine = Self {
            policy,
            cpus: vec![idle; cpus],
            vcpus: Vec::new(),
            now: 0,
            prompt,
            releases: 0,
        };
        machine.serve();
        machine
    }

    fn apply(&mut self, op: Op) {
        let cpu = |number: u32| number as usize % self.cpus.len();
        let count = self.vcpus.len().max(1) as u32;
        match op {
            Op::Add(guest, claim, pin) => self.add(guest, claim, pin),
            Op::Wake(vcpu) => self.policy.wake(VcpuId(vcpu % count), self.now),
            Op::Remove(vcpu) => {
                let vcpu = VcpuId(vcpu % count);
                self.policy.remove(vcpu, self.now);
                if let Some(known) = self.vcpus.get_mut(vcpu.index()) {
                    known.removed = true;
                }
            }
            Op::Pass(time) => self.pass(self.now + time),
            Op::Stop(number, why, hints) => {
                let cpu = cpu(number);
                let Some((_, run)) = self.cpus[cpu].running else {
                    return;
                };
                let wait = hints.wait.map(|wait| Wait {
                    holder: self.sibling(run, wait.holder),
                    ..wait
                });
                let hints = Hints { wait, ..hints };
                let why = match why {
                    Why::Rang => Stop::Rang,
                    Why::Halted => Stop::Halted(None),
                    Why::Naps(time) => Stop::Halted(Some(self.now + time)),
                    Why::Ended => Stop::Ended,
                };
                self.vcpus[run.index()].removed |= why == Stop::Ended;
                self.stop(cpu, why, hints);
                self.pick(cpu);
            }
            Op::Release(number, to) => {
                let cpu = cpu(number);
                let run = self.cpus[cpu].running.map(|(_, run)| run);
                let to = run.and_then(|run| Some(self.sibling(run, VcpuId(to?))));
                self.policy.release(CpuId(cpu as u32), to, self.now);
                if self.cpus[cpu].running.is_some() {
                    self.stop(cpu, Stop::Rang, Hints::default());
                    self.pick(cpu);
                }
            }
            Op::WakeBy(number, vcpu) => {
                let cpu = cpu(number);
                let vcpu = self.waiter(cpu, vcpu).unwrap_or(VcpuId(vcpu % count));
                self.wake_by(cpu, vcpu);
            }
            Op::HandOver(number, lock, to) => {
                let cpu = cpu(number);
                let run = self.cpus[cpu].running.map(|(_, run)| run);
                let to = run.map_or(VcpuId(to), |run| self.sibling(run, VcpuId(to)));
                self.hand_over(cpu, lock, to);
            }
            Op::Defer(number, depth) => {
                let cpu = cpu(number);
                let due = self.cpus[cpu].until.is_some_and(|until| until <= self.now);
                if (due || self.cpus[cpu].kicked)
                    && let Some(end) = self.policy.defer(CpuId(cpu as u32), depth, self.now)
                {
                    self.cpus[cpu].until = Some(end);
                    self.cpus[cpu].kicked = false;
                    self.cpus[cpu].deferred = true;
                }
            }
        }
        self.take_kicks();
        if self.prompt {
            self.serve();
        }
        self.check();
    }

    fn add(&mut self, guest: u32, claim: Claim, pin: u32) {
        let all = CpuSet::first(self.cpus.len()).iter();
        let allowed: CpuSet = all.filter(|cpu| pin >> cpu.0 & 1 == 1).collect();
        let allowed = (!allowed.is_empty()).then_some(allowed);
        let guest = GuestId(guest);
        if self.policy.add_vcpu(guest, claim, allowed).is_ok() {
            self.vcpus.push(Known {
                guest,
                claim,
                added: self.now,
                removed: false,
                overrun: 0,
                ran: 0,
                paid: 0,
                blocks: false,
            });
        }
    }

    /// What runs on `cpu` wakes `vcpu`: if that slept for a lock of the waker, it has it now.
    fn wake_by(&mut self, cpu: usize, vcpu: VcpuId) {
        let mut expected = self.edges();
        let sleeps = self.view(vcpu).is_some_and(|v| v.doing == Doing::Halted);
        if sleeps {
            let from = self.cpus[cpu].running.map(|(_, run)| run);
            if let (Some(from), Some((holder, lock))) = (from, expected[vcpu.index()])
                && holder == from
                && self.vcpus[vcpu.index()].blocks
            {
                pass_on(&mut expected, from, lock, vcpu);
            }
            expected[vcpu.index()] = None;
        }
        self.policy.wake_by(CpuId(cpu as u32), vcpu, self.now);
        assert_eq!(self.edges(), expected, "a wake-up by a holder hands over");
        let awake = |doing| doing != Doing::Halted;
        assert!(self.view(vcpu).is_none_or(|v| awake(v.doing)));
    }

    /// Only what runs can hand over, only within its guest, and only those move who wait for it with
    /// that lock.
    fn hand_over(&mut self, cpu: usize, lock: u64, to: VcpuId) {
        let mut expected = self.edges();
        let mut looks = false;
        if let Some((donor, from)) = self.cpus[cpu].running
            && to != from
            && self.guest(to) == self.guest(from)
        {
            pass_on(&mut expected, from, lock, to);
            let carried_for = self.policy.view_cpu(CpuId(cpu as u32)).map(|c| c.lock);
            looks = donor != from && carried_for == Some(lock);
        }
        self.policy.hand_over(CpuId(cpu as u32), lock, to, self.now);
        assert_eq!(self.edges(), expected, "a hand-over moves what it names");
        self.take_kicks();
        let Cpu {
            kicked, deferred, ..
        } = self.cpus[cpu];
        assert!(!looks || kicked || deferred, "its donor waits for another");
    }

    /// A vCPU of the guest of `run`, for most numbers; for the others the vCPU with this number,
    /// perhaps of another guest or of none.
    fn sibling(&self, run: VcpuId, number: VcpuId) -> VcpuId {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        let siblings: Vec<_> = all.filter(|&v| self.guest(v) == self.guest(run)).collect();
        match number.0 {
            0..10 => siblings[number.index() % siblings.len()],
            _ => number,
        }
    }

    /// One of those who wait for what runs on `cpu`, for most numbers.
    fn waiter(&self, cpu: usize, number: u32) -> Option<VcpuId> {
        let (_, run) = self.cpus[cpu].running.filter(|_| number % 4 != 0)?;
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        let waits = |&v: &VcpuId| matches!(self.edges()[v.index()], Some((on, _)) if on == run);
        let waiters: Vec<_> = all.filter(waits).collect();
        waiters
            .get(number as usize / 4 % waiters.len().max(1))
            .copied()
    }

    fn view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        self.policy.view(vcpu)
    }

    fn guest(&self, vcpu: VcpuId) -> Option<GuestId> {
        self.vcpus.get(vcpu.index()).map(|known| known.guest)
    }

    /// For whom each vCPU waits, and with which lock.
    fn edges(&self) -> Vec<Edge> {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        all.map(|vcpu| self.view(vcpu)?.waits_for).collect()
    }

    /// Lets time pass; each CPU looks when its decision ends.
    fn pass(&mut self, to: Ns) {
        loop {
            self.serve();
            let next = self.cpus.iter().filter_map(|cpu| cpu.until).min();
            match next.filter(|&next| next < to) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = to;
    }

    /// Every CPU that was kicked, or whose time is up, looks until none is left.
    fn serve(&mut self) {
        let due = |cpu: &Cpu, now| cpu.kicked || cpu.until.is_some_and(|until| until <= now);
        for _ in 0..10_000 {
            let Some(cpu) = self.cpus.iter().position(|cpu| due(cpu, self.now)) else {
                return;
            };
            let hints = Hints {
                releases: self.releases,
                ..Hints::default()
            };
            self.stop(cpu, Stop::Preempted, hints);
            self.pick(cpu);
        }
        panic!("CPUs are kicked for ever");
    }

    fn stop(&mut self, cpu: usize, why: Stop, hints: Hints) {
        if let Some((donor, run)) = self.cpus[cpu].running.take() {
            let ran = self.now - self.cpus[cpu].since;
            self.vcpus[run.index()].ran += ran;
            self.vcpus[donor.index()].paid += ran;
            let kind = hints.wait.map(|wait| wait.kind);
            self.vcpus[run.index()].blocks = kind == Some(WaitKind::Block);
            if let Some(until) = self.cpus[cpu].until {
                self.vcpus[donor.index()].overrun += self.now.saturating_sub(until);
            }
            let id = CpuId(cpu as u32);
            self.policy.stop(id, why, hints, ran, self.now);
        }
    }

    fn pick(&mut self, cpu: usize) {
        let decision = self.policy.pick(CpuId(cpu as u32), self.now);
        self.cpus[cpu] = Cpu {
            running: decision.map(|d| (d.donor, d.run)),
            since: self.now,
            until: match decision {
                Some(decision) => decision.until,
                None => self.policy.next_timer(),
            },
            kicked: false,
            deferred: false,
        };
        assert!(
            self.cpus[cpu].until.is_none_or(|until| until > self.now),
            "time goes on"
        );
        self.take_kicks();
    }

    fn take_kicks(&mut self) {
        for cpu in self.policy.take_kicks().iter() {
            self.cpus[cpu.index()].kicked = true;
        }
    }

    fn check(&self) {
        audit(&self.policy).unwrap();
        for (index, cpu) in self.cpus.iter().enumerate() {
            assert_eq!(self.policy.running(CpuId(index as u32)), cpu.running);
            if let Some((donor, run)) = cpu.running {
                let guest = |vcpu: VcpuId| self.vcpus[vcpu.index()].guest;
                assert_eq!(guest(donor), guest(run), "a budget stays in its guest");
                let elsewhere = self.cpus[index + 1..].iter();
                for (other_donor, other_run) in elsewhere.filter_map(|cpu| cpu.running) {
                    assert_ne!(run, other_run, "a vCPU runs once");
                    assert_ne!(donor, other_donor, "a claim pays once");
                }
            }
        }
        for guest in 0..GUESTS {
            let all = || (0..self.vcpus.len() as u32).map(VcpuId);
            let of = || all().filter(|v| self.vcpus[v.index()].guest == GuestId(guest));
            let counters = || of().map(|vcpu| self.policy.counters(vcpu));
            let charged: Ns = counters().map(|c| c.charged_ns).sum();
            let ran: Ns = counters().map(|c| c.runtime_ns).sum();
            assert_eq!(charged, ran, "what runs is paid for, within the guest");
            let donated: Ns = counters().map(|c| c.donated_ns).sum();
            let received: Ns = counters().map(|c| c.received_ns).sum();
            assert_eq!(donated, received);
        }
        for vcpu in (0..self.vcpus.len() as u32).map(VcpuId) {
            self.check_charges(vcpu);
            self.check_budget(vcpu);
            self.check_edge(vcpu);
        }
    }

    /// Nothing is charged to another than the one who paid, nor less than ran.
    fn check_charges(&self, vcpu: VcpuId) {
        let known = &self.vcpus[vcpu.index()];
        let c = self.policy.counters(vcpu);
        assert_eq!((c.runtime_ns, c.charged_ns), (known.ran, known.paid));
        let own = (c.runtime_ns - c.received_ns, c.charged_ns - c.donated_ns);
        assert_eq!(own.0, own.1, "{vcpu} on its own budget");
    }

    /// Nobody waits for itself, nor for a stranger, nor while it runs.
    fn check_edge(&self, vcpu: VcpuId) {
        let view = self.view(vcpu).unwrap();
        if let Some((holder, _)) = view.waits_for {
            assert_ne!(holder, vcpu);
            assert_eq!(
                self.guest(holder),
                self.guest(vcpu),
                "edges stay in a guest"
            );
            assert!(!matches!(view.doing, Doing::Running(_) | Doing::Gone));
        }
    }

    /// A hard reservation is charged one budget for each period since it was added and one more at
    /// most, plus what it was run beyond the ends of its decisions.
    fn check_budget(&self, vcpu: VcpuId) {
        let known = &self.vcpus[vcpu.index()];
        if let Claim::Reserved(r) = known.claim
            && r.exhaustion() == Exhaustion::Hard
        {
            let charged = self.policy.counters(vcpu).charged_ns;
            let periods = (self.now - known.added) / r.period() + 2;
            let bound = periods * r.budget() + known.overrun;
            assert!(charged <= bound, "{vcpu} was charged {charged} of {bound}");
        }
    }

    /// Those that are carried release what they are carried for, and ring: one that is alone on its
    /// CPU would not be stopped otherwise.
    fn carried_release(&mut self) {
        let hints = Hints {
            releases: self.releases,
            ..Hints::default()
        };
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu]
                .running
                .is_some_and(|(donor, run)| donor != run)
            {
                self.policy.release(CpuId(cpu as u32), None, self.now);
                self.stop(cpu, Stop::Rang, hints);
                self.pick(cpu);
            }
        }
    }

    /// Wakes everybody and lets them run: each one gets the CPU sooner or later. Holders release
    /// whenever they ran, or those who wait for them would rightly never run.
    fn nobody_is_lost(mut self) {
        let exhaustion = |vcpu: VcpuId| match self.vcpus[vcpu.index()].claim {
            Claim::Reserved(r) => Some(r.exhaustion()),
            Claim::BestEffort { .. } => None,
        };
        let all = || (0..self.vcpus.len() as u32).map(VcpuId);
        let mut alive: Vec<_> = all().filter(|v| !self.vcpus[v.index()].removed).collect();
        for &vcpu in &alive {
            self.policy.wake(vcpu, self.now);
        }
        // A soft reservation that never sleeps leaves nothing to best effort, nor, for as long as
        // it ran ahead of its budgets before, to itself.
        if alive
            .iter()
            .any(|&v| exhaustion(v) == Some(Exhaustion::Soft))
        {
            alive.retain(|&v| exhaustion(v) == Some(Exhaustion::Hard));
        }
        let before = |&vcpu: &VcpuId| (vcpu, self.policy.counters(vcpu).runtime_ns);
        let mut waiting: Vec<_> = alive.iter().map(before).collect();
        self.take_kicks();
        self.releases = 7;
        // A small weight beside large ones and reservations has its turn once in seconds.
        for _ in 0..400 {
            self.pass(self.now + 50_000 * US);
            self.carried_release();
            let runs = |vcpu| {
                self.cpus
                    .iter()
                    .any(|c| c.running.is_some_and(|r| r.1 == vcpu))
            };
            waiting.retain(|&(vcpu, before)| {
                self.policy.counters(vcpu).runtime_ns == before && !runs(vcpu)
            });
            if waiting.is_empty() {
                return;
            }
        }
        panic!("{waiting:?} were woken and never ran");
    }
}

/// How many random sequences each property sees; more with `PROPTEST_CASES`.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|cases| cases.parse().ok()).unwrap_or(4_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn promises_hold_when_kicks_are_answered_at_once(
        cpus in 1..=4_usize,
        proxy in prop::bool::weighted(0.9),
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut machine = Machine::new(cpus, proxy, true);
        for op in crowd.into_iter().chain(ops) {
            machine.apply(op);
        }
        machine.nobody_is_lost();
    }

    #[test]
    fn promises_hold_when_kicks_are_on_their_way(
        cpus in 1..=4_usize,
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut machine = Machine::new(cpus, true, false);
        for op in crowd.into_iter().chain(ops) {
            machine.apply(op);
        }
        machine.nobody_is_lost();
    }

    #[test]
    fn same_calls_make_the_same_decisions(
        crowd in crowd(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let run = || {
            let mut machine = Machine::new(2, true, true);
            for op in crowd.iter().chain(&ops).cloned() {
                machine.apply(op);
            }
            machine.policy.events
        };
        prop_assert_eq!(run(), run());
    }
}
