//! Suspects: for which vCPU does one wait that spins for a holder that is not known?
//!
//! Where the host infers hints, it sees that a vCPU spins (`Hints::waits`), but not for which lock. Then the
//! policy draws an edge to the likeliest holder among the vCPUs of the guest that are off the CPUs:
//!
//! 1. One that holds something and does not itself spin. Of several, the one that was stopped first.
//! 2. Otherwise one that spins, if it was stopped before the waiter: the lock may have been handed to it since.
//! 3. Otherwise one that holds nothing, if it was stopped before the waiter, and no suspect has released anything
//!    since: the sender of an IPI spins in the same way until the vCPU has taken the interrupt. This is withdrawn
//!    from a guest whose waiters mostly spin on after it: such a vCPU only joins the queue that they are in.
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
//! - A vCPU that holds nothing lets the suspects of its guest run first, on its budget, if the guest is contended
//!   (`contention.rs`). It would queue behind them otherwise. How many that are is bounded, and it is withdrawn where no end of them is reached
//!   (`state/precedence.rs`).
//!
//! A vCPU that has just woken is no such case. Another one of its guest has usually woken it, was preempted for it
//! in the section in which it sent the interrupt, and has just released a mutex. If that vCPU ran first, it
//! would leave the section within a few instructions and be stopped wherever a look finds it, often with the mutex
//! held again, for which the woken one then sleeps.

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

/// How likely a vCPU that is off the CPUs is the one for which another spins, the likeliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Likelihood {
    /// It holds something, and does not spin.
    Holds,
    /// It spins itself, or was suspected for nothing: the lock may have been handed to it since.
    Spins,
    /// It holds nothing. The spinning vCPU may wait until it takes an interrupt, as the sender of an IPI does.
    Free,
}

/// A vCPU that may be the one for which another spins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    likelihood: Likelihood,
    /// When it was stopped, ns.
    since: Ns,
    vcpu: VcpuId,
}

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
        let free_count = !self.guests[self.vcpus[curr].guest]
            .free_suspects
            .is_withdrawn();
        let counts = |candidate: &Candidate| free_count || candidate.likelihood < Likelihood::Free;
        match self.candidates(curr).find(counts) {
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
        let was_helped = self.vcpus[waiter].ec.was_helped;
        let may_help = |candidate: &Candidate| {
            // One that was stopped later has been tried since the waiter ran.
            let is_untried = (candidate.since, candidate.vcpu) < (since, waiter);
            match candidate.likelihood {
                Likelihood::Holds => true,
                Likelihood::Spins => is_untried,
                Likelihood::Free => is_untried && !was_helped,
            }
        };
        let Some(likeliest) = self.candidates(waiter).filter(may_help).min() else {
            return;
        };
        let guest = &mut self.guests[self.vcpus[waiter].guest];
        if likeliest.likelihood < Likelihood::Free || guest.free_suspects.request() {
            self.suspect(waiter, likeliest.vcpu, now);
        }
    }

    /// `donor` holds nothing: suspects of its contended guest run first, if that pays, unless it has just woken.
    fn give_precedence(&mut self, donor: VcpuId, now: Ns) {
        if self.vcpus[donor].ec.has_halted || !self.is_contended(donor) {
            return;
        }
        let may_end = |ec: &ExecContext| ec.hints.waits || !ec.wrongly_suspected;
        let likeliest = self
            .holders_or_waiters(donor)
            .filter(|candidate| may_end(&self.vcpus[candidate.vcpu].ec))
            .min();
        let siblings = self.guests[self.vcpus[donor].guest].vcpus.len() - 1;
        let precedence = &mut self.vcpus[donor].ec.precedence;
        match likeliest {
            None => precedence.done(),
            Some(likeliest) if precedence.request(siblings) => {
                if likeliest.likelihood == Likelihood::Holds {
                    self.note_precedence(donor);
                }
                self.suspect(donor, likeliest.vcpu, now);
            }
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

    /// The vCPU that ran as `running` has stopped with `hints`, and had the hints `before` when it last stopped: if
    /// it was a suspect, its donor waits for it no longer.
    pub(crate) fn settle_suspicion(
        &mut self,
        running: &Running,
        before: &Hints,
        hints: &Hints,
        now: Ns,
    ) {
        let &Running { donor, curr, .. } = running;
        let holds = hints.depth > 0;
        let guest = self.vcpus[curr].guest;
        let ec = &mut self.vcpus[curr].ec;
        ec.wrongly_suspected &= holds;
        ec.was_helped = false;
        if std::mem::take(&mut ec.has_tried_free) {
            let credit = &mut self.guests[guest].free_suspects;
            match hints.waits {
                true => credit.failed(),
                false => credit.paid(),
            }
        }
        if !running.suspect || donor == curr {
            return;
        }
        ec.wrongly_suspected |= holds;
        let counters = self.counting.counters_mut(curr);
        counters.suspected += 1;
        counters.suspect_releases += u64::from(!holds);
        if before.depth == 0 {
            self.vcpus[donor].ec.has_tried_free = true;
        } else if !holds {
            let donor = &mut self.vcpus[donor].ec;
            donor.precedence.suspect_released();
            donor.was_helped = true;
        }
        self.drop_edge(donor, now);
        if self.vcpus[donor].ec.hints.waits {
            self.draw_suspicion(donor, now);
        }
    }

    /// The hints of `vcpu`, which were those `before`, have changed.
    pub(crate) fn count_guesses(&mut self, vcpu: VcpuId, before: &Hints) {
        let v = &self.vcpus[vcpu];
        let guessed = &mut self.guests[v.guest].guessed;
        match (before.is_guess, v.ec.hints.is_guess) {
            (false, true) => *guessed += 1,
            (true, false) => *guessed -= 1,
            _ => {}
        }
    }

    /// Whether `vcpu` spun when it was stopped, and so did others of its guest, or they hold something.
    pub(crate) fn queues_with_others(&self, vcpu: VcpuId) -> bool {
        let hints = &self.vcpus[vcpu].ec.hints;
        hints.is_guess && hints.waits && self.may_wait(vcpu)
    }

    /// Whether `vcpu`, which runs and spins by the host's guess, waits for another one that runs: none that holds
    /// something or spins is off the CPUs.
    pub(crate) fn waits_for_running_holder(&self, vcpu: VcpuId) -> bool {
        let siblings = &self.guests[self.vcpus[vcpu].guest].vcpus;
        let runs = |&other: &VcpuId| matches!(self.vcpus[other].ec.state, ExecState::Running(_));
        siblings.iter().any(|other| *other != vcpu && runs(other)) && !self.may_wait(vcpu)
    }

    /// Whether a vCPU is off the CPUs that may hold what `vcpu` comes to wait for.
    pub(crate) fn may_wait(&self, vcpu: VcpuId) -> bool {
        self.config.proxy && self.holders_or_waiters(vcpu).next().is_some()
    }

    /// The vCPUs off the CPUs that hold something, or wait for it, in no order.
    fn holders_or_waiters(&self, waiter: VcpuId) -> impl Iterator<Item = Candidate> {
        let candidates = self.candidates(waiter);
        candidates.filter(|candidate| candidate.likelihood < Likelihood::Free)
    }

    /// The vCPUs off the CPUs for which `waiter` may wait, in no order.
    fn candidates(&self, waiter: VcpuId) -> impl Iterator<Item = Candidate> {
        let guest = &self.guests[self.vcpus[waiter].guest];
        // A guest that publishes its hints does not pay for a search.
        let siblings = guest.vcpus.iter().take_while(|_| guest.guessed > 0);
        siblings.filter_map(move |&vcpu| {
            let ec = &self.vcpus[vcpu].ec;
            let ExecState::Runnable { since } = ec.state else {
                return None;
            };
            let likelihood = match ec.hints.depth {
                0 => Likelihood::Free,
                _ if ec.hints.waits || ec.wrongly_suspected => Likelihood::Spins,
                _ => Likelihood::Holds,
            };
            let is_candidate = vcpu != waiter && ec.hints.is_guess;
            is_candidate.then_some(Candidate {
                likelihood,
                since,
                vcpu,
            })
        })
    }
}
