//! Which edges of the `blocked_on` graph count. A guest may publish anything; this is the one place that
//! decides what of it the policy acts on.
//!
//! An edge is *drawn* when a vCPU stops, if it leads to another vCPU of the same guest. (The edges to suspects are
//! drawn anew at each pick too: `suspect.rs`.) It is *live* in
//! a state of its waiter in which the wait matters: a spinner that could run, or a sleeper that is
//! halted. It is *stale* when its holder has moved on. It is *dropped* when its waiter runs or wakes, or
//! when a walk finds it stale, circular or too far from the donor.

use crate::events::{Event, Events};
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Hints, Wait, WaitKind};
use crate::state::contexts::{ExecState, ScState};

impl<E: Events> Scheduler<E> {
    /// The edge of `waiter`, if proxying is on and the edge is live: a spinner's edge is of no use while
    /// the spinner sleeps.
    pub(crate) fn live_edge(&self, waiter: VcpuId) -> Option<Wait> {
        if !self.config.proxy {
            return None;
        }
        let wait = self.blocked_on.edge(waiter)?;
        match (wait.kind, self.vcpus[waiter].ec.state) {
            (WaitKind::Block, ExecState::Halted)
            | (WaitKind::Spin | WaitKind::Suspect, ExecState::Runnable { .. }) => Some(wait),
            _ => None,
        }
    }

    /// Whether the holder has released a lock since the waiter read its count. This is known exactly of a
    /// holder that is off the CPUs, and is not checked of one that runs. A sleeping waiter is woken when its
    /// wait is over, so its edge is stale only if the holder is gone.
    pub(crate) fn is_stale(&self, wait: &Wait) -> bool {
        let holder = &self.vcpus[wait.holder].ec;
        match (holder.state, wait.kind) {
            (ExecState::Gone, _) => true,
            (ExecState::Running(_), _) | (_, WaitKind::Block) => false,
            (_, WaitKind::Spin) => holder.hints.releases != wait.holder_releases,
            // None spins for a vCPU that sleeps.
            (ExecState::Halted, WaitKind::Suspect) => true,
            // The suspect may have begun to publish its hints, and is not suspected any more.
            (_, WaitKind::Suspect) => {
                holder.hints.releases != wait.holder_releases || !holder.hints.is_guess
            }
        }
    }

    /// Whether the scheduling context of `vcpu` has something to compete for: its own vCPU could run, or
    /// sleeps on a mutex whose holder it could carry.
    pub(crate) fn is_eligible(&self, vcpu: VcpuId) -> bool {
        match self.vcpus[vcpu].ec.state {
            ExecState::Runnable { .. } => true,
            ExecState::Halted => self.live_edge(vcpu).is_some(),
            ExecState::Running(_) | ExecState::Paused | ExecState::Gone => false,
        }
    }

    /// Whether `hints` name a vCPU to wait for that does not run and still has the lock. Then proxying is
    /// the remedy, not a deferral.
    pub(crate) fn waits_for_stopped_holder(&self, hints: &Hints) -> bool {
        hints.wait.is_some_and(|wait| {
            let holder = self.vcpus.get(wait.holder);
            holder.is_some_and(|holder| {
                !matches!(holder.ec.state, ExecState::Running(_)) && !self.is_stale(&wait)
            })
        })
    }

    /// Draws the edge that `waiter` has published, if it leads to another vCPU of its guest.
    pub(crate) fn draw_edge(&mut self, waiter: VcpuId, hints: &Hints, now: Ns) {
        let out = self.vcpus[waiter].ec.state == ExecState::Gone || self.is_paused(waiter);
        if hints.is_guess && hints.waits && hints.wait.is_none() {
            self.draw_suspicion(waiter, now);
            return;
        }
        let Some(wait) = hints.wait.filter(|_| self.config.proxy && !out) else {
            return;
        };
        let holder = wait.holder;
        if !wait.is_suspicion() && holder != waiter && self.same_guest(waiter, holder) {
            self.blocked_on.set(waiter, wait);
            self.emit_edge_on(waiter, wait, now);
        }
    }

    /// Reports the new edge of `waiter`.
    pub(crate) fn emit_edge_on(&mut self, waiter: VcpuId, wait: Wait, now: Ns) {
        let event = Event::EdgeOn {
            waiter,
            holder: wait.holder,
            is_suspicion: wait.is_suspicion(),
        };
        self.emit(now, event);
    }

    /// Drops the edge of `waiter`, if it has one.
    pub(crate) fn drop_edge(&mut self, waiter: VcpuId, now: Ns) {
        if self.blocked_on.drop_edge(waiter).is_none() {
            return;
        }
        self.emit(now, Event::EdgeOff(waiter));
        // A sleeper competes only for the holder that it waits for.
        let queued = matches!(self.vcpus[waiter].sc.state, ScState::Queued(_));
        if queued && !self.is_eligible(waiter) {
            self.settle_deadlines(waiter, now);
            self.dequeue(waiter);
        }
    }
}
