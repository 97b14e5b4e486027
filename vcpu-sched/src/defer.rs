//! Deferral: a vCPU that is out of time while it holds a lock runs on for a short grace, once.
//!
//! The overrun is charged like all other time, so it is debt of the budget that pays. It costs the
//! next vCPU at most the grace. Holding locks for ever to get the grace each time earns nothing:
//! a grace that runs out unused doubles the number of preemptions that pass before the next one.

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
    /// Asks whether what runs on `cpu`, which is out of time and holds `depth` locks, may go on.
    /// Returns the end of its grace; it has to ring when it releases its last lock.
    pub fn defer(&mut self, cpu: CpuId, depth: u32, now: Ns) -> Option<Ns> {
        let grace = self.config.defer_ns?;
        let running = self.cpus.get_mut(cpu.index())?.running.as_mut()?;
        let vcpu = &mut self.vcpus[running.run.index()];
        if depth == 0 || running.deferred || vcpu.ec.ending || !vcpu.ec.deferral.ask() {
            return None;
        }
        running.deferred = true;
        vcpu.counters.deferrals += 1;
        let run = running.run;
        self.tell(now, Event::Defer { cpu, run });
        Some(now.saturating_add(grace))
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
        assert!(credit.ask());
    }
}
