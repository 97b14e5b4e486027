//! Exit on wake: `KVM_RUN` ends when a halted vCPU wakes, instead of running on.
//!
//! There are two ways. Tracepoints (`wake_events.rs`) end `KVM_RUN` before the guest executes anything, but
//! as a rule only root can read them. Where they are not available, debug flags (`wake_step.rs`) end
//! `KVM_RUN` after one instruction. A guest can escape from that, until the runaway guard
//! (`runaway_guard.rs`) stops it.

use baton_machine::Vcpu;

use super::pending;
use super::wake_events::WakeEvents;
use super::wake_step;

/// A way to make a wake an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitOnWake {
    /// By tracepoints, before the guest executes anything; by debug flags where tracepoints are not
    /// available ([`super::check_wake_events`]).
    Events,
    /// By debug flags, after one instruction.
    Step,
}

/// While it lives, a wake of one vCPU ends `KVM_RUN` on this thread. [`WakeExit::disarm`] has to follow.
#[must_use]
pub(super) enum WakeExit<'a> {
    Events(&'a WakeEvents),
    Step,
}

impl<'a> WakeExit<'a> {
    /// Makes wakes of `vcpu` exits, by `events` if there are any. `None`: KVM refused, and the guest has
    /// ended with a message.
    pub(super) fn arm(events: Option<&'a WakeEvents>, vcpu: &Vcpu) -> Option<Self> {
        match events {
            // The kernel switches them on as long as their thread lives.
            Some(events) if events.on().is_ok() => Some(Self::Events(events)),
            _ => wake_step::set(vcpu).then_some(Self::Step),
        }
    }

    /// Lets `vcpu` run as usual again. False: KVM refused, and the guest has ended with a message.
    pub(super) fn disarm(self, vcpu: &Vcpu) -> bool {
        match self {
            Self::Events(events) => {
                // As in `arm`. If it fails, `KVM_RUN` ends too often on this thread, but runs.
                let _ = events.off();
                true
            }
            Self::Step => wake_step::clear(vcpu),
        }
    }

    /// Whether the halted `vcpu` has woken already, before it sleeps, so that `KVM_RUN` would not sleep
    /// and the tracepoint of a wake would not be passed. Debug flags end `KVM_RUN` in this case too.
    pub(super) fn has_woken(&self, vcpu: &mut Vcpu) -> bool {
        matches!(self, Self::Events(_)) && pending::has_interrupt(vcpu)
    }

    /// Whether a wake ends `KVM_RUN` by a signal. If so, a signal without an interruption means that the
    /// vCPU has woken, even if KVM's state is still halted.
    pub(super) fn ends_by_signal(&self) -> bool {
        matches!(self, Self::Events(_))
    }
}
