//! A vCPU whose guest publishes and does random things, to test what that does to others.

use crate::ids::{Ns, VcpuId};
use crate::rules::stop::StopReason;
use crate::sim::action::Action;
use crate::sim::random::SplitMix64;
use crate::state::blocked_on::{Hints, Wait, WaitKind};

/// How many locks it names, by numbers from 0.
const LOCKS: u64 = 3;

/// Random hints, random doorbells, random halts; never follows the ABI.
#[derive(Clone, Debug)]
pub struct Liar {
    random: SplitMix64,
    /// For how long it runs before its next action, ns.
    computing: Ns,
}

impl Liar {
    /// A liar. The same seed gives the same lies.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            random: SplitMix64::new(seed),
            computing: 0,
        }
    }

    pub(crate) fn pass(&mut self, time: Ns) {
        self.computing = self.computing.saturating_sub(time);
    }

    pub(crate) fn runs_for(&self) -> Ns {
        self.computing
    }

    /// What it does next. `peers` are the vCPUs of its guest, of `all` in the pool.
    pub(crate) fn act(&mut self, peers: &[VcpuId], now: Ns) -> Action {
        if self.computing > 0 {
            return Action::Run;
        }
        let random = &mut self.random;
        self.computing = match random.below(4) {
            0 => random.within(1, 2_000),
            1 => random.within(1, 2_000_000),
            _ => random.within(1, 100_000),
        };
        let peer = peers[random.below(peers.len() as u64) as usize];
        match random.below(9) {
            0 | 1 => Action::Stop(StopReason::Rang),
            2 => Action::Stop(StopReason::Halted(Some(now + random.below(3_000_000)))),
            3 => Action::Release(random.one_in(2).then_some(peer)),
            4 | 5 => Action::Wake(peer),
            6 => Action::HandOver(random.below(LOCKS), peer),
            _ => Action::Run,
        }
    }

    pub(crate) fn hints(&mut self, all: u64) -> Hints {
        let random = &mut self.random;
        let kind = match random.below(5) {
            0 | 1 => WaitKind::Spin,
            2 | 3 => WaitKind::Block,
            _ => WaitKind::Suspect,
        };
        let wait = Wait {
            kind,
            lock: random.below(LOCKS),
            // Some are vCPUs of other guests, and some do not exist.
            holder: VcpuId(random.below(all + 2) as u32),
            holder_releases: random.below(2) as u32,
        };
        Hints {
            depth: random.below(3) as u32,
            releases: random.below(2) as u32,
            wait: (!random.one_in(4)).then_some(wait),
            waits: random.one_in(4),
            is_guess: random.one_in(2),
        }
    }
}
