//! Proxy execution: which vCPU runs on the claim of a vCPU that waits?
//!
//! A vCPU that waits for a lock keeps its place in the queue. When its claim is picked, its budget and
//! the CPU go to the vCPU that it waits for:
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
//! - A waiter may *spin*. It is then runnable itself. While its holder runs on another CPU it is best
//!   left to spin, because that wait is as short as the critical section.
//! - The edges come from a guest, so they may be stale, circular or lies. None of that may cost more
//!   than the walk, and the vCPU that runs in the end runs on a budget of its own guest.

use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Wait, WaitKind};
use crate::state::contexts::ExecState;

/// The longest chain that is followed, in edges.
pub const MAX_CHAIN: u32 = 16;

/// What to do with a claim whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Run this vCPU on it. `lock` is what the last edge of the chain names.
    Run { curr: VcpuId, chain: u32, lock: u64 },
    /// No vCPU that it waits for can run here now. The claim is set aside until `on` stops running or
    /// wakes.
    Park { on: VcpuId },
    /// The vCPU at the end of the chain is pinned to other CPUs. The claim goes to the queue of those.
    Move { to: VcpuId },
    /// Its vCPU sleeps, and there is no vCPU to run on the claim.
    Off,
}

impl<E: Events> Scheduler<E> {
    /// Follows `blocked_on -> holder` from `donor` to the end of the chain.
    pub(crate) fn find_proxy(&mut self, donor: VcpuId, cpu: CpuId, now: Ns) -> Proxy {
        let mut at = donor;
        let mut chain = 0;
        let mut lock = 0;
        // A circle that does not lead back to the donor returns to this vCPU (Brent 1980: the mark
        // moves on to where the walk is when its length is a power of two).
        let mut seen = donor;
        while let Some(wait) = self.edge_to_follow(at) {
            let holder = wait.holder;
            if self.is_stale(&wait) {
                // The holder has released a lock since the waiter looked, or is gone. This comes before
                // the question for a circle: a holder that released its lock and queued again waits for
                // vCPUs whose last record still names it.
                self.vcpus[at.index()].counters.stale_edges += 1;
                self.drop_edge(at, now);
                break;
            }
            let circle = holder == donor || holder == seen;
            if circle || chain == MAX_CHAIN {
                // A deadlock in the guest, a lie, or a chain that is longer than is followed. The donor
                // itself runs, and its next record tells whether it still waits.
                let counters = &mut self.vcpus[donor.index()].counters;
                if circle {
                    counters.cycles += 1;
                } else {
                    counters.long_chains += 1;
                }
                self.drop_edge(donor, now);
                return self.run_or_rest(donor, cpu, 0, 0);
            }
            match self.vcpus[holder.index()].ec.state {
                // The holder runs on another CPU. A spinning waiter may go on spinning. A sleeping one
                // has nothing to do until the holder stops; then its claim carries the holder on.
                ExecState::Running(_) => match wait.kind {
                    WaitKind::Spin => break,
                    WaitKind::Block => {
                        return Proxy::Park { on: holder };
                    }
                },
                // The holder sleeps for reasons of its own: the claim is set aside until it wakes. (A
                // holder that sleeps because it waits for another vCPU is followed, below.)
                ExecState::Halted if self.edge_to_follow(holder).is_none() => {
                    return Proxy::Park { on: holder };
                }
                // The holder is runnable, in this or another queue, or throttled, which is the case that
                // proxying exists for. It runs on the donor's budget.
                ExecState::Halted | ExecState::Runnable { .. } => {
                    at = holder;
                    chain += 1;
                    lock = wait.lock;
                    if chain.is_power_of_two() {
                        seen = at;
                    }
                }
                // An edge to a vCPU that is gone is stale, and was dropped above.
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
                curr: at,
                chain,
                lock,
            },
            ExecState::Runnable { .. } => Proxy::Move { to: at },
            // The last vCPU of the chain sleeps and its edge was stale. A donor leaves the queue; for a
            // donor further up, the claim waits until that vCPU wakes.
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

    /// Whether the holder has released a lock since the waiter looked. This is known exactly for a
    /// holder that is off the CPUs; of one that runs it is not asked. A sleeping waiter is woken when
    /// its wait is over, so its edge cannot be stale unless the holder is gone.
    pub(crate) fn is_stale(&self, wait: &Wait) -> bool {
        let holder = &self.vcpus[wait.holder.index()].ec;
        match (holder.state, wait.kind) {
            (ExecState::Gone, _) => true,
            (ExecState::Running(_), _) | (_, WaitKind::Block) => false,
            (_, WaitKind::Spin) => holder.hints.releases != wait.holder_releases,
        }
    }
}
