//! Proxy execution: which vCPU runs on the scheduling context of a vCPU that waits?
//!
//! A vCPU that waits for a lock keeps its place in the queue. When its scheduling context is picked, its
//! budget and the CPU go to the vCPU that it waits for:
//!
//! ```text
//!   donor ──> owner ──> owner's owner ──> ... ──> the vCPU that can run
//!   is charged                                    runs
//! ```
//!
//! What happens, in this order:
//!
//! 1. The waiter stops and has published for which vCPU it waits. The edge is drawn (`rules/stop.rs`,
//!    `rules/edges.rs`).
//! 2. The waiter's scheduling context is the most urgent of a CPU's queues (`rules/pick.rs`).
//! 3. [`Scheduler::find_proxy`] follows the edges from it, and decides: run the vCPU at the end of the
//!    chain, or set the scheduling context aside, or move it to the CPUs where that vCPU may run.
//! 4. The vCPU at the end runs; its own scheduling context need not compete meanwhile
//!    (`ScState::Proxied`). When it stops, the donor is charged (`rules/charge.rs`).
//! 5. It releases the lock and rings. The edges move to the next holder, or are dropped
//!    (`rules/release.rs`), and the pick that follows gives the donor its CPU back.
//!
//! Source: the idea and the order of the cases follow Linux "sched: Add proxy execution"
//! (Zijlstra, Lelli, Stultz), `find_proxy_task()`; the bounded walk follows NOVA's `Ec::help`. What
//! differs, because vCPUs are not tasks:
//!
//! - A waiter may *spin*. It is then runnable itself. While its holder runs on another CPU it is best
//!   left to spin, because that wait is as short as the critical section.
//! - The edges come from a guest, so they may be stale, circular or false. None of that may cost more
//!   than the walk, and the vCPU that runs in the end runs on a budget of its own guest.

use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Wait, WaitKind};
use crate::state::contexts::ExecState;

/// The longest chain that is followed, in edges.
pub const MAX_CHAIN: u32 = 16;

/// What to do with a scheduling context whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Run this vCPU on it. `lock` is what the last edge of the chain names; `suspect`: that edge is a
    /// guess of the policy.
    Run {
        curr: VcpuId,
        chain: u32,
        lock: u64,
        suspect: bool,
    },
    /// No vCPU that it waits for can run here now. It is set aside until `on` stops running or wakes.
    Park { on: VcpuId },
    /// The vCPU at the end of the chain is pinned to other CPUs. It goes to their queue.
    Move { to: VcpuId },
    /// Its vCPU sleeps, and there is no vCPU to run on it.
    Off,
}

/// A walk along the edges.
#[derive(Clone, Copy, Debug)]
struct Walk {
    /// Where it is.
    at: VcpuId,
    /// Edges behind it.
    chain: u32,
    /// What the last of them names.
    lock: u64,
    /// Whether the last of them leads to a suspect.
    suspect: bool,
    /// A circle that does not lead back to the donor returns to this vCPU (Brent 1980: the mark moves on to
    /// where the walk is when its length is a power of two).
    mark: VcpuId,
}

impl Walk {
    const fn from(donor: VcpuId) -> Self {
        Self {
            at: donor,
            chain: 0,
            lock: 0,
            suspect: false,
            mark: donor,
        }
    }

    fn follow(&mut self, wait: &Wait) {
        self.at = wait.holder;
        self.chain += 1;
        self.lock = wait.lock;
        self.suspect = wait.is_suspicion();
        if self.chain.is_power_of_two() {
            self.mark = self.at;
        }
    }
}

/// What the state of a holder means for the walk.
enum Holder {
    /// It can be helped: the walk goes on to it.
    Follow,
    /// It is only suspected. It can run, and does, whatever it waits for itself.
    Try,
    /// It needs no help: the walk ends at its waiter.
    Enough,
    /// It cannot be helped now.
    Park,
}

impl<E: Events> Scheduler<E> {
    /// Follows `blocked_on -> holder` from `donor` to the end of the chain.
    pub(crate) fn find_proxy(&mut self, donor: VcpuId, cpu: CpuId, now: Ns) -> Proxy {
        let mut walk = Walk::from(donor);
        while let Some(wait) = self.live_edge(walk.at) {
            let holder = wait.holder;
            // This comes before the check for a circle: a holder that released its lock and queued again
            // waits for vCPUs whose last record still names it.
            if self.is_stale(&wait) {
                self.counting.counters_mut(walk.at).stale_edges += 1;
                self.drop_edge(walk.at, now);
                break;
            }
            let circle = holder == donor || holder == walk.mark;
            if circle || walk.chain == MAX_CHAIN {
                return self.give_up(donor, circle, cpu, now);
            }
            match self.can_help(&wait) {
                Holder::Follow => walk.follow(&wait),
                Holder::Try => {
                    walk.follow(&wait);
                    break;
                }
                Holder::Enough => break,
                Holder::Park => return Proxy::Park { on: holder },
            }
        }
        self.end_of_chain(&walk, cpu)
    }

    /// Whether the holder of `wait`, which is not stale, can be helped.
    fn can_help(&self, wait: &Wait) -> Holder {
        match self.vcpus[wait.holder].ec.state {
            // It runs on another CPU. A spinning waiter may go on spinning. A sleeping waiter has nothing to
            // do until the holder stops; then it carries the holder on.
            ExecState::Running(_) => match wait.kind {
                WaitKind::Spin | WaitKind::Suspect => Holder::Enough,
                WaitKind::Block => Holder::Park,
            },
            // It sleeps for reasons of its own: the donor is set aside until it wakes. (A holder that sleeps
            // because it waits for another vCPU is followed, below.)
            ExecState::Halted if self.live_edge(wait.holder).is_none() => Holder::Park,
            // It is runnable, in this or another queue, or throttled, which is the case that proxying exists
            // for. It runs on the donor's budget.
            ExecState::Runnable { .. } if wait.is_suspicion() => Holder::Try,
            ExecState::Halted | ExecState::Runnable { .. } => Holder::Follow,
            // An edge to a vCPU that is gone is stale, and a paused guest has no edges.
            ExecState::Gone | ExecState::Paused => Holder::Enough,
        }
    }

    /// The walk met a deadlock in the guest, a false edge, or a chain that is longer than is followed. The
    /// donor itself runs, and publishes anew whether it still waits.
    fn give_up(&mut self, donor: VcpuId, circle: bool, cpu: CpuId, now: Ns) -> Proxy {
        let counters = self.counting.counters_mut(donor);
        if circle {
            counters.cycles += 1;
        } else {
            counters.long_chains += 1;
        }
        self.drop_edge(donor, now);
        self.end_of_chain(&Walk::from(donor), cpu)
    }

    /// The end of the chain runs, if it can run here.
    fn end_of_chain(&self, walk: &Walk, cpu: CpuId) -> Proxy {
        let &Walk {
            at,
            chain,
            lock,
            suspect,
            ..
        } = walk;
        match self.vcpus[at].ec.state {
            ExecState::Runnable { .. } if self.may_run_on(at, cpu) => Proxy::Run {
                curr: at,
                chain,
                lock,
                suspect,
            },
            ExecState::Runnable { .. } => Proxy::Move { to: at },
            // The last vCPU of the chain sleeps and its edge was stale. If it is the donor, that leaves the
            // queue; otherwise the donor is set aside until it wakes.
            _ if chain == 0 => Proxy::Off,
            _ => Proxy::Park { on: at },
        }
    }
}
