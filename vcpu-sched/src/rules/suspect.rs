//! Suspects: for which vCPU does one wait that spins for a holder that is not known?
//!
//! Where the host infers hints, it sees that a vCPU spins (`Hints::waits`), but not for which lock. Then the
//! policy draws an edge to the likeliest holder among the vCPUs of the guest that are off the CPUs:
//!
//! 1. One that holds something and does not itself spin. Of several, the one that was stopped first.
//! 2. Otherwise one that spins, if it was stopped before the waiter: the lock may have been handed to it since.
//!
//! A suspect runs on the waiter's budget until its owner sees that it holds nothing, or that it spins, and
//! stops it. Then the next one is suspected. The one that has run was stopped last, so it is the last that is
//! suspected again, and after all others the waiter itself runs. A suspect that was stopped because it held
//! something for too long is treated like one that spins until it has been seen free, so that a count that
//! never returns to 0 keeps no waiter from running.
//!
//! A lock that is handed from waiter to waiter in the order of their arrival needs more. Once a holder of it
//! was stopped, all others that run queue behind it, and from then on each acquisition costs a switch, because
//! each one queues again before the next one has had the lock. This ends if all leave the queue. So:
//!
//! - A vCPU that was stopped while it spun runs only until it is seen to hold nothing, as long as others of
//!   its guest wait (`Decision::until_release`). If it is seen so, it is out of the queue, and is stopped.
//! - A vCPU that holds nothing lets the suspects of its guest run first, on its budget. It would queue behind
//!   them otherwise. How many that are is bounded, and it is withdrawn where no end of them is reached
//!   (`state/precedence.rs`).

use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Hints, Wait, WaitKind};
use crate::state::contexts::{ExecContext, ExecState};
use crate::state::cpu_table::Running;

/// Which vCPUs may hold what a vCPU that runs spins for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// None is off the CPUs, so the vCPU waits for one that runs.
    None,
    /// Only such as are off the CPUs.
    OffCpu,
    /// One that is off the CPUs, or one that runs.
    OffCpuOrRunning,
}

/// The place of a suspect in the order in which they are tried, the likeliest one first.
type SuspectRank = (bool, Ns, VcpuId);

impl<E: Events> Scheduler<E> {
    /// Who may hold what the vCPU on `cpu` spins for.
    #[must_use]
    pub fn suspects(&self, cpu: CpuId) -> Suspects {
        let Some(running) = self.cpus.running(cpu).filter(|_| self.config.proxy) else {
            return Suspects::None;
        };
        let curr = running.curr;
        let siblings = &self.guests[self.vcpus[curr].guest].vcpus;
        let runs = |&vcpu: &VcpuId| matches!(self.vcpus[vcpu].ec.state, ExecState::Running(_));
        match self.ranked_suspects(curr).next() {
            None => Suspects::None,
            Some(_) if siblings.iter().filter(|vcpu| runs(vcpu)).count() > 1 => {
                Suspects::OffCpuOrRunning
            }
            Some(_) => Suspects::OffCpu,
        }
    }

    /// The scheduling context of `donor` is the most urgent one: whom does its vCPU suspect now?
    pub(crate) fn refresh_suspicion(&mut self, donor: VcpuId, now: Ns) {
        let ec = &self.vcpus[donor].ec;
        let is_inferred = ec.hints.is_guess && ec.hints.wait.is_none();
        if !self.config.proxy || !is_inferred || !matches!(ec.state, ExecState::Runnable { .. }) {
            return;
        }
        self.drop_edge(donor, now);
        if self.vcpus[donor].ec.hints.waits {
            self.draw_suspicion(donor, now);
        } else if self.vcpus[donor].ec.hints.depth == 0 {
            self.give_precedence(donor, now);
        }
    }

    /// `waiter` spins for a holder that is not known: draws its edge to the likeliest one, if there is one.
    pub(crate) fn draw_suspicion(&mut self, waiter: VcpuId, now: Ns) {
        let ExecState::Runnable { since } = self.vcpus[waiter].ec.state else {
            return;
        };
        let likeliest = self.ranked_suspects(waiter).min();
        if let Some((.., holder)) = likeliest.filter(|best| *best < (true, since, waiter)) {
            self.suspect(waiter, holder, now);
        }
    }

    /// `donor` holds nothing: suspects of its guest run first, if that pays.
    fn give_precedence(&mut self, donor: VcpuId, now: Ns) {
        let may_end = |ec: &ExecContext| ec.hints.waits || !ec.wrongly_suspected;
        let suspects = self.ranked_suspects(donor);
        let likeliest = suspects
            .filter(|&(.., vcpu)| may_end(&self.vcpus[vcpu].ec))
            .min();
        let precedence = &mut self.vcpus[donor].ec.precedence;
        match likeliest {
            None => precedence.done(),
            Some((.., holder)) if precedence.request() => self.suspect(donor, holder, now),
            Some(_) => {}
        }
    }

    fn suspect(&mut self, waiter: VcpuId, holder: VcpuId, now: Ns) {
        if !self.config.proxy {
            return;
        }
        let wait = Wait {
            kind: WaitKind::Suspect,
            lock: 0,
            holder,
            holder_releases: self.vcpus[holder].ec.hints.releases,
        };
        self.blocked_on.set(waiter, wait);
        self.emit_edge_on(waiter, wait, now);
    }

    /// The vCPU that ran as `running` has stopped with `hints`: if it was a suspect, its donor waits for it no
    /// longer.
    pub(crate) fn settle_suspicion(&mut self, running: &Running, hints: &Hints, now: Ns) {
        let &Running { donor, curr, .. } = running;
        let holds = hints.depth > 0;
        let ec = &mut self.vcpus[curr].ec;
        ec.wrongly_suspected &= holds;
        if !running.suspect || donor == curr {
            return;
        }
        ec.wrongly_suspected |= holds;
        let counters = self.counting.counters_mut(curr);
        counters.suspected += 1;
        counters.suspect_releases += u64::from(!holds);
        self.drop_edge(donor, now);
        if self.vcpus[donor].ec.hints.waits {
            self.draw_suspicion(donor, now);
        }
    }

    /// Whether `vcpu` spun when it was stopped, and so did others of its guest, or they hold something.
    pub(crate) fn queues_with_others(&self, vcpu: VcpuId) -> bool {
        let hints = &self.vcpus[vcpu].ec.hints;
        hints.is_guess && hints.waits && self.ranked_suspects(vcpu).next().is_some()
    }

    /// The vCPUs that may hold what `waiter` waits for, in no order.
    fn ranked_suspects(&self, waiter: VcpuId) -> impl Iterator<Item = SuspectRank> {
        let siblings = &self.guests[self.vcpus[waiter].guest].vcpus;
        siblings.iter().filter_map(move |&vcpu| {
            let ec = &self.vcpus[vcpu].ec;
            let ExecState::Runnable { since } = ec.state else {
                return None;
            };
            let is_suspect = vcpu != waiter && ec.hints.is_guess && ec.hints.depth > 0;
            is_suspect.then_some((ec.hints.waits || ec.wrongly_suspected, since, vcpu))
        })
    }
}
