//! Deferral: a vCPU that is out of time while it holds a lock, or is about to get one, may run on for a
//! short time, once.
//!
//! A holder gets the deferral so that no other vCPU has to wait for it. A waiter whose holder runs gets it
//! for two reasons: its wait ends within microseconds, and would last until its next turn if it were
//! stopped now; and in a queue it would be a holder that does not run as soon as the lock came to it.
//!
//! The overrun is charged like all other time, so it is debt of the donor. It costs the next vCPU at most
//! the deferral. A guest gains nothing by claiming to hold locks for ever: each deferral that ends
//! without a release doubles the number of preemptions before the next one is granted
//! (`state/deferral_credit.rs`).
//!
//! Where the host infers the hints, a count that is not 0 may also be that of a vCPU that spins for a
//! holder. If it `waits`, that earns neither a deferral nor a denial, because the hint says nothing about
//! the locks that it holds at other times, unless none that it could wait for is off the CPUs. And since a guess is wrong more often than a statement, deferrals
//! on guesses are withdrawn only from a vCPU for which fewer than half of them end with a release
//! (`state/guess_credit.rs`).
//!
//! A guess defers no preemption by a kick. Most of these kicks come while the vCPU wakes another one that is more
//! urgent, by an IPI whose sending is an exit: at its end the section lasts for a few instructions more, and a
//! mutex has just been released. A doorbell would come at the end of the section, but a look comes tens of
//! microseconds later, when the vCPU may hold the mutex again, which no guess shows.

use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns};
use crate::rules::stop::StopReason;
use crate::scheduler::Scheduler;
use crate::state::blocked_on::Hints;
use crate::state::cpu_table::Running;
use crate::state::deferral_credit::Grounds;

impl<E: Events> Scheduler<E> {
    /// Requests that the vCPU on `cpu`, which is out of time and has published `hints`, may run on. Returns
    /// when the deferral ends, ns. The vCPU has to ring when it releases its last lock.
    pub fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        let length = self.config.defer_ns?;
        let running = self.cpus.running(cpu)?;
        let (curr, deferred) = (running.curr, running.deferred.is_some());
        let soon_done = hints.depth > 0
            && (!hints.waits || self.waits_for_running_holder(curr))
            && !self.waits_for_stopped_holder(hints);
        let ends = self.is_paused(curr) || self.vcpus[curr].ec.ending;
        let is_kicked = hints.is_guess && self.cpus[cpu].needs_resched();
        if !soon_done || deferred || ends || is_kicked {
            return None;
        }
        let ec = &mut self.vcpus[curr].ec;
        let (grounds, granted) = match hints.is_guess {
            true => (Grounds::Guess, ec.guessed_deferral.request()),
            false => (Grounds::Published, ec.deferral.request()),
        };
        if !granted {
            return None;
        }
        self.cpus.running_mut(cpu)?.deferred = Some(grounds);
        self.emit(now, Event::Defer { cpu, curr });
        Some(now.saturating_add(length))
    }

    /// The vCPU of a decision that was deferred has stopped: did it release its locks in time?
    pub(crate) fn settle_deferral(&mut self, running: &Running, why: StopReason, hints: &Hints) {
        let Some(grounds) = running.deferred else {
            return;
        };
        let ec = &mut self.vcpus[running.curr].ec;
        if why == StopReason::Rang || hints.depth == 0 {
            match grounds {
                Grounds::Guess => ec.guessed_deferral.paid(),
                Grounds::Published => ec.deferral.kept(),
            }
        } else if !hints.waits {
            // One that has begun to spin may have released its lock before, so that counts for nothing.
            match grounds {
                Grounds::Guess => ec.guessed_deferral.failed(),
                Grounds::Published => ec.deferral.expired(),
            }
            self.counting.counters_mut(running.curr).deferrals_expired += 1;
        }
    }
}
