//! The guests: what each vCPU does, and the hint page that it shares with the host.
//!
//! The rules of the ABI, as a well-behaved guest keeps them:
//! - A vCPU that spins names the owner of the lock, or for a queue lock the first vCPU ahead in the queue
//!   that is not running. It rings when the named vCPU is not running.
//! - A vCPU that sleeps on a mutex names the owner and goes idle.
//! - A vCPU that releases the lock for which it is carried rings. A vCPU whose preemption was deferred rings
//!   when it releases its last lock.

use crate::ids::{GuestId, Ns, VcpuId};
use crate::rules::stop::StopReason;
use crate::sim::action::Action;
use crate::sim::lock::{Lock, LockId, LockKind};
use crate::sim::script::{Behaviour, Step};
use crate::state::blocked_on::{Hints, Wait, WaitKind};

/// For how long a spinner that has rung spins before it rings again, ns of CPU time.
const PATIENCE: Ns = 20_000;

/// What a scripted vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fetch,
    Computing(Ns),
    Waiting {
        lock: LockId,
        since: Ns,
    },
    Sleeping(Ns),
    Ringing(Option<VcpuId>),
    /// It was removed, and runs until its CPU has been kicked.
    Removed,
}

/// One vCPU as its guest sees it.
#[derive(Debug)]
struct GuestVcpu {
    guest: GuestId,
    behaviour: Behaviour,
    phase: Phase,
    next_step: usize,
    period_start: Ns,
    patience: Ns,
    depth: u32,
    releases: u32,
    host: HostHints,
    tally: Tally,
}

/// What the host publishes on the hint page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostHints {
    pub(crate) running: bool,
    /// The lock for which a waiter's budget carries it.
    pub(crate) donated: Option<u64>,
    pub(crate) deferred: bool,
}

/// What is counted in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) acquisitions: u64,
    pub(crate) wait_max_ns: Ns,
    pub(crate) wait_sum_ns: Ns,
    pub(crate) passes: u64,
    pub(crate) rings: u64,
}

impl Tally {
    fn waited(&mut self, time: Ns) {
        self.wait_max_ns = self.wait_max_ns.max(time);
        self.wait_sum_ns += time;
    }
}

/// All guests of the pool.
#[derive(Debug)]
pub(crate) struct World {
    vcpus: Vec<GuestVcpu>,
    locks: Vec<Lock>,
    peers: Vec<Vec<VcpuId>>,
    /// Guests of hosts that do not proxy have no reason to ring.
    proxy: bool,
}

impl World {
    pub(crate) const fn new(proxy: bool) -> Self {
        Self {
            vcpus: Vec::new(),
            locks: Vec::new(),
            peers: Vec::new(),
            proxy,
        }
    }

    pub(crate) fn lock(&mut self, guest: GuestId, kind: LockKind) -> LockId {
        self.locks.push(Lock::new(guest, kind));
        LockId(self.locks.len() - 1)
    }

    pub(crate) fn add(&mut self, guest: GuestId, behaviour: Behaviour) {
        if let Behaviour::Script(script) = &behaviour {
            for step in &script.steps {
                if let Step::Lock(lock) | Step::Unlock(lock) = step {
                    assert_eq!(self.locks[lock.0].guest, guest, "a lock of its own guest");
                }
            }
        }
        if self.peers.len() <= guest.index() {
            self.peers.resize(guest.index() + 1, Vec::new());
        }
        self.peers[guest.index()].push(VcpuId(self.vcpus.len() as u32));
        self.vcpus.push(GuestVcpu {
            guest,
            behaviour,
            phase: Phase::Fetch,
            next_step: 0,
            period_start: 0,
            patience: 0,
            depth: 0,
            releases: 0,
            host: HostHints::default(),
            tally: Tally::default(),
        });
    }

    /// The vCPUs of a guest.
    pub(crate) fn peers(&self, guest: GuestId) -> Vec<VcpuId> {
        self.peers.get(guest.index()).cloned().unwrap_or_default()
    }

    pub(crate) fn guest(&self, vcpu: VcpuId) -> GuestId {
        self.vcpus[vcpu.index()].guest
    }

    pub(crate) fn host(&mut self, vcpu: VcpuId) -> &mut HostHints {
        &mut self.vcpus[vcpu.index()].host
    }

    /// What was counted, with a wait that has not ended at `now`.
    pub(crate) fn tally(&self, vcpu: VcpuId, now: Ns) -> Tally {
        let v = &self.vcpus[vcpu.index()];
        let mut tally = v.tally;
        if let Phase::Waiting { since, .. } = v.phase {
            tally.waited(now - since);
        }
        tally
    }

    /// The vCPU will never run again.
    pub(crate) fn forget(&mut self, vcpu: VcpuId) {
        for lock in &mut self.locks {
            lock.forget(vcpu);
        }
        self.vcpus[vcpu.index()].phase = Phase::Removed;
    }

    /// It ran for `time` ns.
    pub(crate) fn pass(&mut self, vcpu: VcpuId, time: Ns) {
        let v = &mut self.vcpus[vcpu.index()];
        v.patience = v.patience.saturating_sub(time);
        if let Behaviour::Liar(liar) = &mut v.behaviour {
            liar.pass(time);
        }
        if let Phase::Computing(left) = &mut v.phase {
            *left = left.saturating_sub(time);
        }
    }

    /// For how long it runs before its next action, ns; `None`: it spins until something happens
    /// elsewhere.
    pub(crate) fn runs_for(&self, vcpu: VcpuId) -> Option<Ns> {
        let v = &self.vcpus[vcpu.index()];
        match (&v.behaviour, v.phase) {
            (Behaviour::Liar(liar), _) => Some(liar.runs_for()),
            (_, Phase::Computing(left)) => Some(left),
            (_, Phase::Removed) => None,
            (_, Phase::Waiting { lock, .. }) if self.locks[lock.0].is_for(vcpu) => Some(0),
            (_, Phase::Waiting { .. }) => self.would_ring(vcpu).then_some(v.patience),
            _ => Some(0),
        }
    }

    /// Its next action on its CPU, now.
    pub(crate) fn act(&mut self, vcpu: VcpuId, now: Ns) -> Action {
        let v = &mut self.vcpus[vcpu.index()];
        if let Behaviour::Liar(liar) = &mut v.behaviour {
            return liar.act(&self.peers[v.guest.index()], now);
        }
        match v.phase {
            Phase::Fetch => self.fetch(vcpu, now),
            Phase::Computing(0) => self.done(vcpu, now),
            Phase::Computing(_) | Phase::Removed => Action::Run,
            Phase::Waiting { lock, since } => self.wait(vcpu, lock, since, now),
            Phase::Sleeping(until) if now >= until => self.done(vcpu, now),
            Phase::Sleeping(until) => Action::Stop(StopReason::Halted(Some(until))),
            Phase::Ringing(to) => {
                v.phase = Phase::Fetch;
                v.tally.rings += 1;
                Action::Release(to)
            }
        }
    }

    fn done(&mut self, vcpu: VcpuId, now: Ns) -> Action {
        self.vcpus[vcpu.index()].phase = Phase::Fetch;
        self.fetch(vcpu, now)
    }

    /// Begins the next step of the script.
    fn fetch(&mut self, vcpu: VcpuId, now: Ns) -> Action {
        let v = &mut self.vcpus[vcpu.index()];
        let Behaviour::Script(script) = &v.behaviour else {
            return Action::Run;
        };
        if v.next_step == script.steps.len() {
            if !script.repeats {
                return Action::Stop(StopReason::Ended);
            }
            v.tally.passes += 1;
            v.next_step = 0;
        }
        let step = script.steps[v.next_step];
        v.next_step += 1;
        match step {
            Step::Compute(time) => {
                v.phase = Phase::Computing(time);
                Action::Run
            }
            Step::Halt => Action::Stop(StopReason::Halted(None)),
            Step::Sleep(time) => self.sleep(vcpu, now + time),
            Step::NextPeriod(period) => {
                v.period_start += period;
                let until = v.period_start;
                if until <= now {
                    return Action::Run;
                }
                self.sleep(vcpu, until)
            }
            Step::Wake(other) => Action::Wake(other),
            Step::Lock(lock) => self.wait(vcpu, lock, now, now),
            Step::Unlock(lock) => self.unlock(vcpu, lock),
        }
    }

    fn sleep(&mut self, vcpu: VcpuId, until: Ns) -> Action {
        self.vcpus[vcpu.index()].phase = Phase::Sleeping(until);
        Action::Stop(StopReason::Halted(Some(until)))
    }

    /// Takes the lock, or goes on waiting.
    fn wait(&mut self, vcpu: VcpuId, lock: LockId, since: Ns, now: Ns) -> Action {
        if self.locks[lock.0].take(vcpu) {
            let v = &mut self.vcpus[vcpu.index()];
            v.phase = Phase::Fetch;
            v.patience = 0;
            v.depth += 1;
            v.tally.acquisitions += 1;
            v.tally.waited(now - since);
            return Action::Run;
        }
        self.vcpus[vcpu.index()].phase = Phase::Waiting { lock, since };
        if self.locks[lock.0].kind == LockKind::Mutex {
            return Action::Stop(StopReason::Halted(None));
        }
        let rings = self.would_ring(vcpu);
        let v = &mut self.vcpus[vcpu.index()];
        if rings && v.patience == 0 {
            v.patience = PATIENCE;
            v.tally.rings += 1;
            return Action::Stop(StopReason::Rang);
        }
        Action::Run
    }

    fn unlock(&mut self, vcpu: VcpuId, lock: LockId) -> Action {
        assert_eq!(
            self.locks[lock.0].owner,
            Some(vcpu),
            "a script unlocks what it holds"
        );
        let to = self.locks[lock.0].release();
        let mutex = self.locks[lock.0].kind == LockKind::Mutex;
        let v = &mut self.vcpus[vcpu.index()];
        v.depth -= 1;
        v.releases = v.releases.wrapping_add(1);
        let carried = v.host.donated == Some(lock.address());
        if carried || v.host.deferred && v.depth == 0 {
            v.phase = Phase::Ringing(to);
        }
        match to {
            Some(next) if mutex => Action::Wake(next),
            _ => Action::Run,
        }
    }

    fn is_running(&self, vcpu: VcpuId) -> bool {
        self.vcpus[vcpu.index()].host.running
    }

    /// Whether the vCPU that it waits for is not running, so that the host should act.
    fn would_ring(&self, vcpu: VcpuId) -> bool {
        self.proxy
            && self
                .record(vcpu)
                .is_some_and(|wait| wait.kind == WaitKind::Spin && !self.is_running(wait.holder))
    }

    /// The wait record on the hint page.
    fn record(&self, vcpu: VcpuId) -> Option<Wait> {
        let Phase::Waiting { lock, .. } = self.vcpus[vcpu.index()].phase else {
            return None;
        };
        let state = &self.locks[lock.0];
        let owner = state.owner.filter(|&owner| owner != vcpu)?;
        let stopped = state.ahead_of(vcpu).find(|&v| !self.is_running(v));
        let (kind, holder) = match state.kind {
            LockKind::Mutex => (WaitKind::Block, owner),
            LockKind::Ticket => (WaitKind::Spin, stopped.unwrap_or(owner)),
            LockKind::TestAndSet => (WaitKind::Spin, owner),
        };
        Some(Wait {
            kind,
            lock: lock.address(),
            holder,
            holder_releases: self.vcpus[holder.index()].releases,
        })
    }

    /// What the host reads when the vCPU has stopped or is out of time.
    pub(crate) fn hints(&mut self, vcpu: VcpuId) -> Hints {
        let all = self.vcpus.len() as u64;
        if let Behaviour::Liar(liar) = &mut self.vcpus[vcpu.index()].behaviour {
            return liar.hints(all);
        }
        let v = &self.vcpus[vcpu.index()];
        let wait = self.record(vcpu);
        let spins = wait.is_some_and(|wait| wait.kind == WaitKind::Spin);
        Hints {
            depth: v.depth + u32::from(spins),
            releases: v.releases,
            wait,
            ..Hints::default()
        }
    }
}
