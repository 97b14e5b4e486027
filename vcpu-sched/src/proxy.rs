//! Proxy execution: whom does a waiting claim carry?
//!
//! A blocked waiter keeps its place in the queue. When its turn comes, its budget and its CPU go to
//! whoever it waits for:
//!
//! ```text
//!   donor ──> owner ──> owner's owner ──> ... ──> the one that can run
//!   pays                                          runs
//! ```
//!
//! Source: the idea and the order of the cases follow Linux "sched: Add proxy execution"
//! (Zijlstra, Lelli, Stultz), `find_proxy_task()`; the name and the bounded walk, NOVA's
//! `Ec::help`. What differs, because vCPUs are not tasks:
//!
//! - a waiter may *spin*: then it is itself runnable, and on a holder that runs elsewhere it is
//!   best left to spin, for that wait is as short as the critical section;
//! - the edges come from a guest, so they may be stale, circular or lies; none of that may cost
//!   more than the walk, and whoever runs in the end runs on a budget of its own guest.

use crate::blocked_on::{Wait, WaitKind};
use crate::contexts::ExecState;
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;

/// The longest chain that is followed, in edges.
pub const MAX_CHAIN: u32 = 16;

/// What to do with a claim whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Run this vCPU on it. `lock` is what the last edge of the chain names.
    Run { run: VcpuId, chain: u32, lock: u64 },
    /// Nothing that it waits for can run here now: set it aside until `on` stops running or wakes.
    Park { on: VcpuId },
    /// The vCPU to run may not run on this CPU, by the user's pinning: the claim goes to where it
    /// may.
    Move { to: VcpuId },
    /// Its vCPU sleeps and there is nobody to carry.
    Off,
}

impl<E: Events> Scheduler<E> {
    /// Follows `blocked_on -> holder` from `donor` to the end of the chain.
    pub(crate) fn find_proxy(&mut self, donor: VcpuId, cpu: CpuId, now: Ns) -> Proxy {
        let mut at = donor;
        let mut chain = 0;
        let mut lock = 0;
        while let Some(wait) = self.edge_to_follow(at) {
            let holder = wait.holder;
            if holder == donor || chain == MAX_CHAIN {
                // A cycle: a deadlock in the guest, or a lie. Its donor runs and finds out.
                self.vcpus[donor.index()].counters.cycles += 1;
                self.drop_edge(donor, now);
                return self.run_or_rest(donor, cpu, 0, 0);
            }
            if self.is_stale(&wait) {
                // The holder has let go since the waiter looked, or is gone.
                self.vcpus[at.index()].counters.stale_edges += 1;
                self.drop_edge(at, now);
                break;
            }
            match self.vcpus[holder.index()].ec.state {
                // Runs elsewhere. A spinner is as well off spinning; a sleeper has nothing to do
                // until the holder stops, and then carries it on.
                ExecState::Running(_) => match wait.kind {
                    WaitKind::Spin => break,
                    WaitKind::Block => {
                        return Proxy::Park { on: holder };
                    }
                },
                // Sleeps itself, waiting for another: follow. Sleeps for its own reasons: the
                // waiter sleeps with it and wakes with it.
                ExecState::Halted if self.edge_to_follow(holder).is_none() => {
                    return Proxy::Park { on: holder };
                }
                // Runnable here or in another CPU's queue, or throttled (the case that proxying
                // exists for): it goes on, on the donor's budget.
                ExecState::Halted | ExecState::Runnable { .. } => {
                    at = holder;
                    chain += 1;
                    lock = wait.lock;
                }
                // Gone is stale, and was dropped above.
                ExecState::Gone => break,
            }
        }
        self.run_or_rest(at, cpu, chain, lock)
    }

    /// The end of the chain: run it, if it can run here.
    fn run_or_rest(&self, at: VcpuId, cpu: CpuId, chain: u32, lock: u64) -> Proxy {
        let ec = &self.vcpus[at.index()].ec;
        match ec.state {
            ExecState::Runnable { .. } if self.may_run_on(at, cpu) => Proxy::Run {
                run: at,
                chain,
                lock,
            },
            ExecState::Runnable { .. } => Proxy::Move { to: at },
            // Its edge was stale and it sleeps: a donor with nobody to carry rests, and one further
            // down waits for it to wake.
            _ if chain == 0 => Proxy::Off,
            _ => Proxy::Park { on: at },
        }
    }

    /// The edge of `at`, if proxying is on and the edge means anything in its state: a spinner's
    /// edge is of no use while it sleeps.
    fn edge_to_follow(&self, at: VcpuId) -> Option<Wait> {
        if !self.config.proxy {
            return None;
        }
        let wait = self.blocked_on.edge(at)?;
        match (wait.kind, self.vcpus[at.index()].ec.state) {
            (WaitKind::Block, ExecState::Halted) | (WaitKind::Spin, ExecState::Runnable { .. }) => {
                Some(wait)
            }
            _ => None,
        }
    }

    /// Whether the holder released something since the waiter looked. Known exactly for a holder
    /// that is off the CPUs; one that runs is not asked. A sleeper is woken when its wait is over,
    /// so its edge cannot be stale unless its holder is gone.
    fn is_stale(&self, wait: &Wait) -> bool {
        let holder = &self.vcpus[wait.holder.index()].ec;
        match (holder.state, wait.kind) {
            (ExecState::Gone, _) => true,
            (ExecState::Running(_), _) | (_, WaitKind::Block) => false,
            (_, WaitKind::Spin) => holder.hints.releases != wait.holder_releases,
        }
    }
}
