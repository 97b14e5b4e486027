//! Deferral: a vCPU that is out of time while it holds a lock, or is about to get one, may run on for
//! a short grace, once.
//!
//! A holder gets the grace so that no other vCPU has to wait for it. A waiter whose holder runs gets it
//! for two reasons: its wait ends within microseconds, and would last until its next turn if it were
//! stopped now; and in a queue it would be a holder that does not run as soon as the lock came to it.
//!
//! The overrun is charged like all other time, so it is debt of the budget that pays. It costs the
//! next vCPU at most the grace. A guest gains nothing by claiming to hold locks for ever: each grace
//! that ends without a release doubles the number of preemptions before the next one is granted.

use crate::blocked_on::Hints;
use crate::contexts::ExecState;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns};
use crate::scheduler::Scheduler;

/// The most preemptions that pass without a grace after graces that ran out.
const MAX_DENIALS: u32 = 1024;

/// How far a vCPU's word about its locks is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Denials still to come.
    denials_left: u32,
    /// Denials after the next grace that runs out.
    penalty: u32,
}

impl Credit {
    fn ask(&mut self) -> bool {
        let granted = self.denials_left == 0;
        self.denials_left = self.denials_left.saturating_sub(1);
        granted
    }

    pub(crate) fn expired(&mut self) {
        self.penalty = (self.penalty * 2).clamp(1, MAX_DENIALS);
        self.denials_left = self.penalty;
    }

    pub(crate) fn kept(&mut self) {
        self.penalty = 0;
    }
}

impl<E: Events> Scheduler<E> {
    /// Asks whether the vCPU that runs on `cpu`, which is out of time and published `hints`, may go on.
    /// Returns the end of its grace. It has to ring when it releases its last lock.
    pub fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        let grace = self.config.defer_ns?;
        let soon_done = hints.depth > 0 && !self.waits_for_long(hints);
        let running = self.cpus.get_mut(cpu.index())?.running.as_mut()?;
        let vcpu = &mut self.vcpus[running.run.index()];
        if !soon_done || running.deferred || vcpu.ec.ending || !vcpu.ec.deferral.ask() {
            return None;
        }
        running.deferred = true;
        vcpu.counters.deferrals += 1;
        let run = running.run;
        self.tell(now, Event::Defer { cpu, run });
        Some(now.saturating_add(grace))
    }

    /// Whether it waits for a vCPU that does not run and still has the lock. Then proxying is the remedy,
    /// not a grace.
    fn waits_for_long(&self, hints: &Hints) -> bool {
        hints.wait.is_some_and(|wait| {
            let holder = self.vcpus.get(wait.holder.index());
            holder.is_some_and(|holder| {
                !matches!(holder.ec.state, ExecState::Running(_)) && !self.is_stale(&wait)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_that_run_out_are_given_ever_more_rarely() {
        let mut credit = Credit::default();
        let mut granted = Vec::new();
        for ask in 0..40 {
            if credit.ask() {
                granted.push(ask);
                credit.expired();
            }
        }
        assert_eq!(granted, [0, 2, 5, 10, 19, 36]);
    }

    #[test]
    fn a_kept_word_restores_trust() {
        let mut credit = Credit::default();
        credit.expired();
        credit.expired();
        while !credit.ask() {}
        credit.kept();
        credit.expired();
        let mut granted = [false; 2].map(|_| credit.ask());
        assert_eq!(granted, [false, true], "as after the first broken word");
        credit.expired();
        granted = [false; 2].map(|_| credit.ask());
        assert_eq!(granted, [false, false]);
    }
}
