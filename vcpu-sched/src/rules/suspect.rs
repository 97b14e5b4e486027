//! Suspects: for which vCPU does one wait that spins for a holder that is not known?
//!
//! Where the host infers hints, it sees that a vCPU spins (`Hints::waits`), but not for which lock. Then the
//! policy draws an edge to the likeliest holder among the vCPUs of the guest that are off the CPUs:
//!
//! 1. One that holds something and does not itself spin. Of several, the one that was stopped first.
//! 2. Otherwise one that spins, if it was stopped before the waiter: the lock may have been handed to it since.
//!
//! A suspect runs on the waiter's budget until its owner sees that it holds nothing, or that it spins, and
//! stops it. If it has released its locks, the waiter runs and finds out whether that was for the lock that
//! it waits for. If it spins, the waiter suspects the next one. The suspect was stopped last then, so it is
//! the last that is suspected again, and after all others the waiter itself runs. A suspect that was stopped
//! because it held something for too long is treated like one that spins until it has been seen free, so that
//! a count that never returns to 0 keeps no waiter from running.

use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Hints, SUSPECTED_LOCK, Wait, WaitKind};
use crate::state::contexts::ExecState;
use crate::state::cpu_table::Running;

impl<E: Events> Scheduler<E> {
    /// `waiter` spins for a holder that is not known: draws its edge to the likeliest one, if there is one.
    pub(crate) fn draw_suspicion(&mut self, waiter: VcpuId, now: Ns) {
        let Some(wait) = self.suspicion(waiter).filter(|_| self.config.proxy) else {
            return;
        };
        self.blocked_on.set(waiter, wait);
        self.emit_edge_on(waiter, wait, now);
    }

    /// The suspect that ran as `running` has stopped with `hints`: its donor runs next if the suspect holds
    /// nothing, and suspects another vCPU otherwise.
    pub(crate) fn settle_suspicion(&mut self, running: &Running, hints: &Hints, now: Ns) {
        let donor = running.donor;
        let ec = &mut self.vcpus[running.curr].ec;
        ec.wrongly_suspected &= hints.depth > 0;
        if running.lock != SUSPECTED_LOCK || donor == running.curr {
            return;
        }
        self.drop_edge(donor, now);
        if hints.depth > 0 {
            self.vcpus[running.curr].ec.wrongly_suspected = true;
            self.draw_suspicion(donor, now);
        }
    }

    /// The edge of `waiter` to the likeliest holder.
    fn suspicion(&self, waiter: VcpuId) -> Option<Wait> {
        let ExecState::Runnable { since } = self.vcpus[waiter].ec.state else {
            return None;
        };
        let siblings = &self.guests[self.vcpus[waiter].guest].vcpus;
        let ranked = siblings.iter().filter_map(|&vcpu| {
            let ec = &self.vcpus[vcpu].ec;
            let ExecState::Runnable { since } = ec.state else {
                return None;
            };
            let is_holder = vcpu != waiter && ec.hints.is_guess && ec.hints.depth > 0;
            is_holder.then_some((ec.hints.waits || ec.wrongly_suspected, since, vcpu))
        });
        let (_, _, holder) = ranked.min().filter(|best| *best < (true, since, waiter))?;
        Some(Wait {
            kind: WaitKind::Spin,
            lock: SUSPECTED_LOCK,
            holder,
            holder_releases: self.vcpus[holder].ec.hints.releases,
        })
    }
}
