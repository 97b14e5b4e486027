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

use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::Hints;
use crate::state::contexts::ExecState;

impl<E: Events> Scheduler<E> {
    /// Asks whether the vCPU that runs on `cpu`, which is out of time and published `hints`, may go on.
    /// Returns the end of its grace. It has to ring when it releases its last lock.
    pub fn defer(&mut self, cpu: CpuId, hints: &Hints, now: Ns) -> Option<Ns> {
        let grace = self.config.defer_ns?;
        let soon_done = hints.depth > 0 && !self.waits_for_long(hints);
        let running = self.cpus.get_mut(cpu.index())?.running.as_mut()?;
        let vcpu = &mut self.vcpus[running.curr.index()];
        if !soon_done || running.deferred || vcpu.ec.ending || !vcpu.ec.deferral.ask() {
            return None;
        }
        running.deferred = true;
        vcpu.counters.deferrals += 1;
        let curr = running.curr;
        self.emit(now, Event::Defer { cpu, curr });
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
